import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{isLocked,tryLock,tryLockDirectory,tryLockWhereKnown}from"./chunk-QICBRLYS.js";import"./chunk-SGX6ZE42.js";import"./chunk-CCZZVCC4.js";import"./chunk-PAOLESMT.js";export{isLocked,tryLock,tryLockDirectory,tryLockWhereKnown};
