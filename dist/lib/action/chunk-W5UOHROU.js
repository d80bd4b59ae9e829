import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{nodeCommand}from"./chunk-7C7XKW2Y.js";import{existsSync}from"node:fs";import{dirname,join}from"node:path";function unshareCommand(node=nodeCommand()){let[loader,option,folders,file]=node;if(loader===void 0||option===void 0||folders===void 0||file===void 0)return["unshare"];let brought=join(dirname(file),"unshare");return existsSync(brought)?[loader,option,folders,brought]:["unshare"]}export{unshareCommand};
