// SPDX-License-Identifier: Apache-2.0
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { runTool } from './tool.js';

const ASK_TIMEOUT_MS = 20_000;

/** The Debian main archives that this machine already uses, the likeliest first. Empty when it uses none. */
export async function findMirrors(signal?: AbortSignal, aptFolder = '/etc/apt'): Promise<string[]> {
  // Without --no-release-info apt names only those whose lists were fetched, and container images have none.
  const command = ['apt-get', 'indextargets', '--no-release-info', '--format', '$(SITE)', 'Created-By: Packages'];
  const asked = await runTool(command, { timeoutMs: ASK_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) });
  const sites = asked.ok ? asked.stdout.split('\n') : [];
  return chooseMirrors(sites.some((site) => site !== '') ? sites : await sitesOfSourceFiles(aptFolder));
}

/** Drop what is no main archive and put the best guess first; exported for its tests. */
export function chooseMirrors(sites: readonly string[]): string[] {
  const usable = sites
    .map((site) => site.trim().replace(/\/+$/, ''))
    .filter((site) => /^(?:https?|file|copy|ftp|tor\+https?|mirror(?:\+[a-z]+)?):/.test(site))
    .filter((site) => !/\bdebian-(?:security|ports|debug)\b|\/\/security\.|\/security$/.test(site));
  const mains = usable.filter((site) => /\/debian$/.test(site));
  const likely = usable.filter((site) => site.includes('debian') && !mains.includes(site));
  const ranked = [...new Set([...mains, ...likely])];
  // A mirror need not have Debian in its name; but where one has, the others are third parties.
  return ranked.length > 0 ? ranked : [...new Set(usable)];
}

async function sitesOfSourceFiles(aptFolder: string): Promise<string[]> {
  const sites = parseSourceList(await textOf(join(aptFolder, 'sources.list')));
  const parts = join(aptFolder, 'sources.list.d');
  const names = (await readdir(parts).catch(() => [])).sort();
  for (const name of names) {
    if (name.endsWith('.list')) sites.push(...parseSourceList(await textOf(join(parts, name))));
    if (name.endsWith('.sources')) sites.push(...parseDeb822(await textOf(join(parts, name))));
  }
  return sites;
}

async function textOf(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}

/** The URIs of the one-line format: `deb [option=value] URI suite component...`. */
export function parseSourceList(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const uri = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+\S+/.exec(line)?.[1];
    return uri === undefined ? [] : [uri];
  });
}

/** The URIs of the stanza format (deb822) that are enabled and name binary packages. */
export function parseDeb822(text: string): string[] {
  const stanzas = text.replace(/^#.*\n?/gm, '').split(/\n\s*\n/);
  return stanzas.flatMap((stanza) => {
    const fields = new Map<string, string>();
    // A line that starts with a blank continues the field before it.
    for (const line of stanza.replace(/\n[ \t]+/g, ' ').split('\n')) {
      const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (field?.[1] !== undefined) fields.set(field[1].toLowerCase(), field[2] ?? '');
    }
    const enabled = !/^(?:no|false|0|off|without|disable)$/i.test(fields.get('enabled')?.trim() ?? 'yes');
    const binary = (fields.get('types') ?? '').split(/\s+/).includes('deb');
    return enabled && binary ? (fields.get('uris') ?? '').split(/\s+/).filter((uri) => uri !== '') : [];
  });
}
