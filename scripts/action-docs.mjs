// SPDX-License-Identifier: Apache-2.0
// Prints the tables of action.yml's inputs and outputs, as docs/action.md has them.
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

const { inputs, outputs } = parse(readFileSync('action.yml', 'utf8'));

export function inputTable() {
  const rows = Object.entries(inputs).map(([name, { description, default: value = '', required }]) => {
    const shown = required === true ? 'required' : value === '' ? '' : `\`${value}\``;
    return `| \`${name}\` | ${description} | ${shown} |`;
  });
  return ['| input | meaning | default |', '|---|---|---|', ...rows].join('\n');
}

export function outputTable() {
  const rows = Object.entries(outputs).map(([name, { description }]) => `| \`${name}\` | ${description} |`);
  return ['| output | meaning |', '|---|---|', ...rows].join('\n');
}
