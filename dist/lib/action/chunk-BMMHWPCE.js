import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{cleanMappings,forgetPages,unmapIdleCode}from"./chunk-INA5V4V7.js";import"./chunk-7C7XKW2Y.js";import"./chunk-VVCJV5YX.js";import"./chunk-VEIP7QUS.js";import"./chunk-PAOLESMT.js";export{cleanMappings,forgetPages,unmapIdleCode};
