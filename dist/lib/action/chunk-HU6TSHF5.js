import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{EAGAIN,EBADF,EEXIST,EINTR,ENOENT,ENOSYS,EPERM,EPIPE,SystemError,addressOf,check,lastErrno,libc}from"./chunk-VVCJV5YX.js";import"./chunk-VEIP7QUS.js";import"./chunk-PAOLESMT.js";export{EAGAIN,EBADF,EEXIST,EINTR,ENOENT,ENOSYS,EPERM,EPIPE,SystemError,addressOf,check,lastErrno,libc};
