import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{hasErrno}from"./chunk-FGPAQKDC.js";import{appendFileSync,readFileSync}from"node:fs";import{join}from"node:path";var LAST_TRY="SIGUSR2",OUTPUT_FILE="output",EVENTS_FILE="events";function tellEvent(directory,event){let line=`${JSON.stringify({atMs:Date.now(),...event})}
`;try{appendFileSync(join(directory,EVENTS_FILE),line)}catch{process.stderr.write(`nobody to tell: ${line}`)}}function readEvents(directory){let text;try{text=readFileSync(join(directory,EVENTS_FILE),"utf8")}catch(error){if(hasErrno(error,"ENOENT"))return[];throw error}return text.split(`
`).slice(0,-1).map(line=>JSON.parse(line))}function resultOf(events){return events.find(event=>event.type==="ended")}export{LAST_TRY,OUTPUT_FILE,tellEvent,readEvents,resultOf};
