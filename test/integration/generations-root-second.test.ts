// SPDX-License-Identifier: Apache-2.0
// Every fixture, frozen at random instants over three generations, as root: the second half of the table (halves run side by side).
import { testGenerations } from '../support/generations.js';

testGenerations('root', 'second');
