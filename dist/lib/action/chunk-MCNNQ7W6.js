import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
var CHECKPOINTED="checkpointed",INTERRUPTED="interrupted";export{CHECKPOINTED,INTERRUPTED};
