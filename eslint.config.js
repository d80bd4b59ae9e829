// SPDX-License-Identifier: Apache-2.0
import tseslint from 'typescript-eslint';

// Layers from the top (users) to the bottom (the kernel). A folder may import itself and what stands below it.
const layers = [
  'action',
  'cli',
  'daemon',
  'batch',
  'notice',
  'engine',
  'container',
  'criu',
  'files',
  'image',
  'store',
  'linux',
  'base',
];

// A `../layer/` import of anything above is an error: mechanism must not know who uses it.
const layerRules = layers.map((layer, depth) => ({
  files: [`src/${layer}/**/*.ts`],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: layers.slice(0, depth).map((above) => ({
          group: [`**/${above}/**`],
          message: `src/${layer} lies below src/${above}: imports go down the layers only (docs/architecture.md).`,
        })),
      },
    ],
  },
}));

export default tseslint.config(
  { ignores: ['lib/', '.build/', 'dist/', 'build/', 'docker/fastfreeze/', 'node_modules/', 'test/fixtures/'] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['*.js', 'scripts/*.mjs'] } } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-empty': ['error', { allowEmptyCatch: false }],
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
    },
  },
  ...layerRules,
  { files: ['**/*.js', '**/*.mjs'], ...tseslint.configs.disableTypeChecked },
  { files: ['eslint.config.js', 'jest.config.js'], rules: { 'no-restricted-exports': 'off' } },
);
