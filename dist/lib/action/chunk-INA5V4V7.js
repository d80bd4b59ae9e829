import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{nodeFile}from"./chunk-7C7XKW2Y.js";import{addressOf,libc}from"./chunk-VVCJV5YX.js";import{readFileSync}from"node:fs";var madvise=libc.func("int madvise(uint64 address, size_t length, int advice)"),MADV_DONTNEED=4,PAGE_BYTES=4096n;function unmapIdleCode(){let smaps;try{smaps=readFileSync("/proc/self/smaps","latin1")}catch{return}for(let{start,end}of cleanMappings(smaps,nodeFile()))madvise(start,end-start,MADV_DONTNEED)}function cleanMappings(smaps,path){let found=[];for(let at=smaps.indexOf(` ${path}
`);at>=0;at=smaps.indexOf(` ${path}
`,at+1)){let head=smaps.slice(smaps.lastIndexOf(`
`,at)+1,at),[,from,to,rights]=/^([0-9a-f]+)-([0-9a-f]+) (\S+) /u.exec(head)??[],isClean=["Anonymous","Swap"].every(field=>{let found2=smaps.indexOf(`
${field}:`,at);return found2>=0&&/^\n\w+:\s+0 kB\n/u.test(smaps.slice(found2,found2+40))});from===void 0||to===void 0||!/^r-[-x]p$/u.test(rights??"")||!isClean||found.push({start:BigInt(`0x${from}`),end:BigInt(`0x${to}`)})}return found}function forgetPages(buffer){let address=addressOf(buffer),start=(address+PAGE_BYTES-1n)/PAGE_BYTES*PAGE_BYTES,end=(address+BigInt(buffer.length))/PAGE_BYTES*PAGE_BYTES;end>start&&madvise(start,end-start,MADV_DONTNEED)}export{unmapIdleCode,cleanMappings,forgetPages};
