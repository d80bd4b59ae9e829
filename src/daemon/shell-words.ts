// SPDX-License-Identifier: Apache-2.0

/**
 * A command line as words, by the shell's rules for white space, quotes and backslashes, and for nothing else: `$`, `*`, `#`
 * or `>` are characters like any other. Undefined where a quote or a backslash has nothing after it.
 */
export function shellWords(text: string): string[] | undefined {
  const words: string[] = [];
  let rest = text;
  let word: string | undefined;
  while (rest !== '') {
    const [piece, kind] = nextPiece(rest);
    if (piece === undefined) return undefined;
    rest = rest.slice(piece.length);
    if (kind === 'gap') {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? '') + MEANING[kind](piece);
    }
  }
  return word === undefined ? words : [...words, word];
}

type Kind = 'plain' | 'single' | 'double' | 'escape' | 'continued';

/** What each kind of piece stands for. */
const MEANING: Readonly<Record<Kind, (piece: string) => string>> = {
  plain: (piece) => piece,
  single: (piece) => piece.slice(1, -1),
  // Inside double quotes a backslash is one unless it stands before one of these.
  double: (piece) => piece.slice(1, -1).replace(/\\([$`"\\\n])/gu, (_, char: string) => (char === '\n' ? '' : char)),
  escape: (piece) => piece.slice(1),
  continued: () => '',
};

const PIECES: readonly (readonly [Kind | 'gap', RegExp])[] = [
  ['gap', /^[ \t\n]+/u],
  ['plain', /^[^ \t\n'"\\]+/u],
  ['single', /^'[^']*'/u],
  ['double', /^"(?:[^"\\]|\\[^])*"/u],
  ['continued', /^\\\n/u],
  ['escape', /^\\[^]/u],
];

function nextPiece(text: string): readonly [string, Kind | 'gap'] | readonly [undefined, 'gap'] {
  for (const [kind, pattern] of PIECES) {
    const piece = pattern.exec(text)?.[0];
    if (piece !== undefined) return [piece, kind];
  }
  return [undefined, 'gap'];
}
