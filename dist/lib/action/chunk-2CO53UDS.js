import { createRequire as requireFor } from 'node:module';
const require = requireFor(import.meta.url);
var OBJECT_PATH="fastfreeze-object";export{OBJECT_PATH};
