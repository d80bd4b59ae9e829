import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{isLocked,tryLock,tryLockDirectory,tryLockWhereKnown}from"./chunk-KZCZSHZ6.js";import"./chunk-4AYLHV5K.js";import"./chunk-CCZZVCC4.js";import"./chunk-PAOLESMT.js";export{isLocked,tryLock,tryLockDirectory,tryLockWhereKnown};
