import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{isLocked,tryLock,tryLockDirectory,tryLockLeftDirectory,tryLockWhereKnown}from"./chunk-XDFPSXOP.js";import"./chunk-ORXA5BXM.js";import"./chunk-VVCJV5YX.js";import"./chunk-VEIP7QUS.js";import"./chunk-PAOLESMT.js";export{isLocked,tryLock,tryLockDirectory,tryLockLeftDirectory,tryLockWhereKnown};
