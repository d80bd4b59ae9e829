import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
import{createHash}from"node:crypto";function commandSha256(command){return createHash("sha256").update(command.join("\0")).digest("hex")}export{commandSha256};
