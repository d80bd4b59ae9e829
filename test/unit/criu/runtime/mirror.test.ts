// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from '@jest/globals';
import { chooseMirrors, parseDeb822, parseSourceList } from '../../../../src/criu/runtime/mirror.js';

describe('parseSourceList', () => {
  it('takes binary archives, with and without options, and skips the rest', () => {
    const text = [
      '# deb http://commented.example/debian sid main',
      'deb http://one.example/debian bookworm main contrib',
      '  deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://two.example/debian/ bookworm main',
      'deb-src http://source.example/debian bookworm main',
      'deb cdrom:[Debian 12]/ bookworm main',
      'deb',
      '',
    ].join('\n');
    expect(parseSourceList(text)).toEqual([
      'http://one.example/debian',
      'https://two.example/debian/',
      'cdrom:[Debian',
    ]);
  });
});

describe('parseDeb822', () => {
  it('takes enabled stanzas of binary packages, with several URIs and folded lines', () => {
    const text = [
      'Types: deb deb-src',
      '# a comment within',
      'URIs: http://one.example/debian http://two.example/debian',
      'Suites: bookworm',
      '',
      'Types: deb',
      'URIs:',
      ' http://three.example/debian',
      ' http://four.example/debian',
      'Suites: sid',
      '',
      'Types: deb-src',
      'URIs: http://source.example/debian',
      '',
      'Enabled: no',
      'Types: deb',
      'URIs: http://off.example/debian',
    ].join('\n');
    expect(parseDeb822(text)).toEqual([
      'http://one.example/debian',
      'http://two.example/debian',
      'http://three.example/debian',
      'http://four.example/debian',
    ]);
  });
});

describe('chooseMirrors', () => {
  it('puts the main archive first and drops security, ports and media', () => {
    const sites = [
      'cdrom:[Debian',
      'http://security.example/debian-security/',
      'http://mirror.example/archive/debian/20250101T000000Z/',
      'http://mirror.example/debian/',
      'http://mirror.example/debian',
      'http://ports.example/debian-ports',
      'https://third-party.example/node',
    ];
    expect(chooseMirrors(sites)).toEqual([
      'http://mirror.example/debian',
      'http://mirror.example/archive/debian/20250101T000000Z',
    ]);
  });

  it('keeps an archive below a folder that sounds like another', () => {
    expect(chooseMirrors(['file:/exports/debian'])).toEqual(['file:/exports/debian']);
  });

  it('takes what there is when no name speaks of Debian', () => {
    expect(chooseMirrors(['http://cache.example/main', ''])).toEqual(['http://cache.example/main']);
  });
});
