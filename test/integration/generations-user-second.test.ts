// SPDX-License-Identifier: Apache-2.0
// Every fixture, frozen at random instants over three generations, as a normal user: the second half of the table (halves run side by side).
import { testGenerations } from '../support/generations.js';

testGenerations('user', 'second');
