// SPDX-License-Identifier: Apache-2.0
import type { ImageFileWriter } from './image-file-writer.js';
import type { ImageWriter } from './writer.js';

/** Add bytes to a file of an image, waiting for memory where there is none. Throws the image's error once it has one. */
export async function append(image: ImageWriter, file: ImageFileWriter, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const region = await reserveRoom(image, file);
    const taken = bytes.copy(region, 0, done);
    file.commit(taken);
    done += taken;
  }
}

/** Memory for a file's next bytes, as soon as there is some. */
export async function reserveRoom(image: ImageWriter, file: ImageFileWriter): Promise<Buffer> {
  for (;;) {
    const region = file.reserve();
    if (region !== undefined) return region;
    await image.room();
    if (image.error !== undefined) throw image.error;
  }
}
