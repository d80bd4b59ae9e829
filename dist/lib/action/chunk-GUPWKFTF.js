import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{cleanMappings,forgetPages,unmapIdleCode}from"./chunk-X7SH2V46.js";import"./chunk-7C7XKW2Y.js";import"./chunk-CCZZVCC4.js";import"./chunk-PAOLESMT.js";export{cleanMappings,forgetPages,unmapIdleCode};
