// SPDX-License-Identifier: Apache-2.0

/** Fixtures number their lines from 0. Throws when one is missing, repeated, cut or out of order; returns how many there are. */
export function checkLines(output: string, options: { readonly complete: boolean } = { complete: true }): number {
  const lines = output.split('\n');
  const rest = lines.pop();
  if (rest !== '') throw new Error(`the output ends inside a line: ${JSON.stringify(rest)}`);
  lines.forEach((line, index) => {
    if (!line.startsWith(`${index} `)) {
      const around = lines.slice(Math.max(0, index - 3), index + 3).join('\n');
      throw new Error(`line ${index} is ${JSON.stringify(line)}: output was lost, repeated or cut, around:\n${around}`);
    }
  });
  if (options.complete && lines.at(-1) !== `${lines.length - 1} done`)
    throw new Error(`the last line is ${JSON.stringify(lines.at(-1))}, not done`);
  return lines.length;
}
