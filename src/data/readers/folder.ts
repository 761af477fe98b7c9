/**
 * `folder:DIR`: the PNG, JPEG and DICOM files below a folder, told by their extensions.
 *
 *     DIR/<class>/…/x.png           every folder is a label, its images are split by their hash
 *     DIR/train/<class>/…/x.png     split folders above the classes: train, val, test, unlabeled
 *     DIR/x.png                     a flat pile, unlabelled
 *
 * An image lies in the class of the outermost folder below DIR or the split folder; one directly in
 * either is unlabelled. Labels and images are sorted by UTF-16 code units. Hidden folders and other
 * files are passed over.
 */

import { join } from "node:path";
import { UserError } from "../../errors.ts";
import { asUserError } from "../../files.ts";
import type { Example } from "../dataset.ts";
import { parseSplit, splitByPatient } from "../splits.ts";

/**
 * Lists the examples of a folder.
 *
 * @throws UserError if there is no such folder, no image in it, or split folders beside others
 */
export async function readFolder(dir: string): Promise<{ labels: string[]; examples: Example[] }> {
  const ids = (await listImages(dir)).sort();
  if (ids.length === 0) {
    throw new UserError(`${dir}: no .png, .jpg, .jpeg, .dcm or .dicom file below this folder`);
  }

  const tops = [...new Set(ids.filter((id) => id.includes("/")).map((id) => id.split("/")[0]!))];
  const splitFolders = tops.filter((top) => parseSplit(top) !== null);
  const others = tops.filter((top) => parseSplit(top) === null);
  if (splitFolders.length > 0 && others.length > 0) {
    throw new UserError(
      `${dir}: split folders (${splitFolders.join(", ")}) beside others (${others.join(", ")}); ` +
        `put the classes inside the splits, or rename the folders`,
    );
  }

  const rows = ids.map((id) => {
    const folders = id.split("/").slice(0, -1);
    const split = folders[0] === undefined ? "unlabeled" : parseSplit(folders[0]);
    const label = folders[split === null ? 0 : 1] ?? null;
    return { id, file: join(dir, id), split, label, labelled: label !== null, patient: null };
  });
  const labels = [...new Set(rows.flatMap(({ label }) => label ?? []))].sort();
  const places = splitByPatient(rows);
  const examples = rows.map(({ id, file, split, label, patient }, i): Example => ({
    ...{ id, file, patient, source: null, view: null, license: null },
    split: split ?? places[i]!,
    labels: Float32Array.from(labels, (name) => label === null ? NaN : Number(name === label)),
  }));
  return { labels, examples };
}

/** The images below `dir` as paths with `/`, following links but no circle of them. */
async function listImages(dir: string): Promise<string[]> {
  const images: string[] = [];
  const visit = async (folder: string, prefix: string, above: readonly string[]) => {
    const real = await Deno.realPath(folder);
    if (above.includes(real)) return;
    for (const entry of entriesOf(folder)) {
      const path = join(folder, entry.name);
      const name = prefix + entry.name;
      const { isDirectory, isFile } = entry.isSymlink ? statOf(path) : entry;
      if (isDirectory && !/^(\.|__MACOSX$)/.test(entry.name)) {
        await visit(path, `${name}/`, [...above, real]);
      } else if (isFile && /^[^.].*\.(png|jpe?g|dcm|dicom)$/i.test(entry.name)) images.push(name);
    }
  };
  if (!statOf(dir).isDirectory) throw new UserError(`${dir}: is no folder`);
  await visit(dir, "", []);
  return images;
}

function entriesOf(folder: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(folder)];
  } catch (error) {
    throw asUserError(folder, error);
  }
}

function statOf(path: string): Deno.FileInfo {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw asUserError(path, error);
    throw new UserError(`${path}: no such file or folder, or a link to nothing`);
  }
}
