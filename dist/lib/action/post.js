import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{readHandover}from"./chunk-E6Z3U57Y.js";import"./chunk-IZPQQNKW.js";import"./chunk-PAOLESMT.js";readHandover()!==void 0&&(process.exitCode=await(await import("./chunk-KYY3ONWA.js")).runPost());setTimeout(()=>process.exit(),1e3).unref();
