/** Everything that reads bytes or text from outside, with good files to damage. */

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { zipSync } from "npm:fflate@0.8.2";
import { decodeCheckpoint, encodeCheckpoint } from "../../src/checkpoint.ts";
import { parseFlags } from "../../src/commands/flags.ts";
import { flags } from "../../src/commands/train.ts";
import { readCifar10 } from "../../src/data/readers/cifar.ts";
import { readCsv } from "../../src/data/readers/csv.ts";
import { decodeImage } from "../../src/data/decode/decode.ts";
import { readMedmnist } from "../../src/data/readers/medmnist.ts";
import { contentKey, PixelCache } from "../../src/data/decode/pixel_cache.ts";
import { pixelSizeOf } from "../../src/data/decode/pixel_size.ts";
import { encodePng } from "../../src/data/decode/png.ts";
import { formatSpec, parseSpec } from "../../src/data/spec.ts";
import { readStl10 } from "../../src/data/readers/stl10.ts";
import { readClassifierFile } from "../../src/classifier.ts";
import { architectureOf, readEncoderFile } from "../../src/encoder.ts";
import { parseCsv } from "../../src/formats/csv.ts";
import { decodeNpy, encodeNpy } from "../../src/formats/npy.ts";
import { decodePth } from "../../src/formats/pth.ts";
import { decodeSafetensors, encodeSafetensors } from "../../src/formats/safetensors.ts";
import { readZip } from "../../src/formats/zip.ts";
import { Random } from "../../src/random.ts";
import { RunFolder } from "../../src/run_folder.ts";
import { SYNTAX, writeDicomImage } from "./dicom.ts";
import { FIXTURES, readFixture } from "./fixture.ts";
import type { Material } from "./mutate.ts";
import { PNG_CHANNELS, writePng } from "./png.ts";

/** A reader under test. */
export interface Target extends Material {
  readonly name: string;
  /** Reads a file, and returns the value or throws a UserError. */
  read(bytes: Uint8Array): unknown;
  /** Bytes of arrays that the value may hold. */
  readonly limit: (bytes: Uint8Array) => number;
}

const random = new Random(0, "fuzz corpus");
const noise = (length: number) => Uint8Array.from({ length }, () => random.integer(256));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytesOf = (content: string) => new TextEncoder().encode(content);

/** The most a picture may take: up to 2^27 pixels of three channels, and no more than its file can hold. */
const pictureLimit = () => 3 * 2 ** 27;
/** Copies of strided or narrow tensors, and the file itself. */
const tensorLimit = (bytes: Uint8Array) => 8 * bytes.length + 1024;

const pngs = ([0, 2, 3, 4, 6] as const).flatMap((colorType) =>
  (colorType === 0 || colorType === 3 ? [1, 4, 8] as const : [8, 16] as const).flatMap((depth) =>
    [false, true].map((interlaced) =>
      writePng({
        ...{ width: 9, height: 7, colorType, depth, interlaced },
        samples: Array.from(
          { length: 63 * PNG_CHANNELS[colorType] },
          () => random.integer(2 ** depth),
        ),
        ...(colorType === 3
          ? { palette: [...noise(3 << depth)], transparency: [...noise(1 << depth)] }
          : {}),
      })
    )
  )
);

const dicoms = Object.values(SYNTAX).filter((syntax) => syntax !== SYNTAX.jpeg).flatMap((
  syntax,
) => [
  writeDicomImage({
    ...{ width: 5, height: 4, syntax, stored: 12, signed: true },
    words: Array.from({ length: 20 }, () => random.integer(4096)),
    elements: [[0x00281050, "DS", "100\\200"], [0x00281051, "DS", "50\\60"]],
  }),
  writeDicomImage({
    ...{ width: 3, height: 2, syntax, channels: 3, allocated: 8, planar: 1 },
    words: noise(18),
  }),
]);

/** Makes the checksums of a PNG's chunks right again, as far as its chunks can be followed. */
function repairPng(bytes: Uint8Array): Uint8Array {
  const png = Buffer.from(bytes);
  for (let at = 8; at + 12 <= png.length;) {
    const end = at + 8 + png.readUInt32BE(at);
    if (end + 4 > png.length) break;
    png.writeUInt32BE(crc32(png.subarray(at + 4, end)), end);
    at = end + 4;
  }
  return png;
}

/** A PNG of any header and any filtered rows, compressed and with checksums as they should be. */
function pngOf(bytes: Uint8Array): Uint8Array {
  const chunk = (type: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const framed = Buffer.alloc(body.length + 8);
    framed.writeUInt32BE(data.length);
    framed.set(body, 4);
    framed.writeUInt32BE(crc32(body), body.length + 4);
    return framed;
  };
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", bytes.subarray(0, 13)),
    ...(bytes[9] === 3 ? [chunk("PLTE", bytes.subarray(13, 13 + 3 * 16))] : []),
    chunk("IDAT", deflateSync(bytes.subarray(13))),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

const rows = [[8, 0, 1], [16, 2, 6], [4, 3, 1], [8, 6, 4], [2, 0, 1]].flatMap((
  [depth, type, bytes],
) =>
  [0, 1].map((interlaced) => {
    const filtered = noise(7 * (1 + 9 * bytes!)).map((byte, i) =>
      i % (1 + 9 * bytes!) === 0 ? byte % 5 : byte
    );
    return Uint8Array.of(0, 0, 0, 9, 0, 0, 0, 7, depth!, type!, 0, 0, interlaced, ...filtered);
  })
);

const tensors = {
  "conv1.weight": { dtype: "F32", shape: [2, 1, 3, 3], data: new Float32Array(18).fill(0.5) },
  "bn1.num_batches_tracked": { dtype: "I64", shape: [], data: BigInt64Array.of(3n) },
  half: { dtype: "F16", shape: [3], data: Float16Array.of(1, 2, 3) },
  bytes: { dtype: "U8", shape: [2, 0], data: new Uint8Array(0) },
} as const;
const format = { size: 32, normalization: { mean: [0.5], std: [0.2] } };
const safetensors = [
  encodeSafetensors(tensors, { wgrad: JSON.stringify(format) }),
  encodeSafetensors({}, { a: "b", c: "\u00e9" }),
];

/** As much of a ResNet-18 as tells its architecture. */
const one = { dtype: "F32", shape: [1], data: Float32Array.of(1) } as const;
const resnet = encodeSafetensors(
  Object.fromEntries([
    ["conv1.weight", tensors["conv1.weight"]] as const,
    ...[1, 2, 3, 4].flatMap((layer) =>
      [0, 1].map((block) => [`layer${layer}.${block}.conv1.weight`, one] as const)
    ),
  ]),
  { wgrad: JSON.stringify(format) },
);

const classifier = encodeSafetensors({ "fc.weight": one }, {
  wgrad: JSON.stringify({
    ...{ ...format, labels: ["a", "b"], kind: "multi-label", thresholds: [0.5, 0.5] },
    ...{ constant: [0, 1], apart: [{ label: "b", of: "a" }], epoch: 3 },
  }),
});

const npys = [
  encodeNpy({ shape: [2, 3], data: new Float32Array(6) }),
  encodeNpy({ shape: [], data: BigInt64Array.of(7n) }),
  encodeNpy({ shape: [5], data: new Uint8Array(5) }),
];

const image28 = encodeNpy({ shape: [2, 28, 28], data: noise(2 * 784) });
const labels28 = encodeNpy({ shape: [2, 1], data: Uint8Array.of(0, 1) });
const npz = zipSync(Object.fromEntries(
  ["train", "val", "test"].flatMap((split) => [
    [`${split}_images.npy`, image28],
    [`${split}_labels.npy`, labels28],
  ]),
));

const pickles = ["weights_zip", "weights_checkpoint_zip", "weights_legacy"].map((name) =>
  Uint8Array.from(readFileSync(new URL(`${name}.pth`, FIXTURES)))
);

const tables = [
  'filename,labels,split,patient_id,view\r\na.png,"Edema|Mass",train,p1,PA\r\nb.png,,unlabeled,p2,\r\n',
  '\ufefffilename,labels\n"a ""b"".png",x\n"c\nd.png",y\n',
  "Source,FILENAME,labels,note\nA,1.png,x|y,\nB,2.png,,z\n",
].map(bytesOf);

const specs = [
  "csv:a/b.csv?split=train,val&labels=x,y&views=PA&limit=3",
  "folder:data%2Bmore+phantom:n=12,seed=3?split=test",
  "stl10:DIR?fold=3+csv:C:\\x.csv?map=a%3Eb&having=x&resplit=70,10,20&fraction=0.1",
].map(bytesOf);

const configs = [
  '{\n  // how\n  "method": "kmeans", "epochs": 3, /* for\n long */ "lr": 1e-3,\n  "json": true,\n}',
  '{"data": "csv:x.csv+folder:y", "image-size": 32, "channels": 3, "out": "runs/a",}',
].map(bytesOf);

/**
 * All readers. Those that read files by name are given one in `dir`, which must exist.
 */
export async function fuzzTargets(dir: string): Promise<Target[]> {
  const fixture = await readFixture("resize");
  const jpegs = ["gray", "rgb", "progressive"].map((name) =>
    fixture.bytes(`jpeg_${name}.file`).data
  );
  const file = (name: string, bytes: Uint8Array) => overwrite(join(dir, name), bytes);

  const cifar = join(dir, "cifar");
  mkdirSync(cifar);
  const record = Uint8Array.of(1, ...new Uint8Array(3072));
  for (const name of ["data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]) {
    file(`cifar/${name}.bin`, record);
  }
  file("cifar/test_batch.bin", record);
  const stl = join(dir, "stl");
  mkdirSync(stl);
  const planes = new Uint8Array(3 * 96 * 96);
  for (const name of ["train_X.bin", "test_X.bin"]) file(`stl/${name}`, planes);
  file("stl/train_y.bin", Uint8Array.of(1));

  const cacheDir = join(dir, "cache");
  const images = [1, 2, 3].map((i) => [contentKey(Uint8Array.of(i)), noise(16)] as const);
  new PixelCache(cacheDir, 4, 1).write(new Map(images));
  const [pack] = [...Deno.readDirSync(cacheDir)].map(({ name }) => join(cacheDir, name));
  const packed = Uint8Array.from(readFileSync(pack!));
  rmSync(cacheDir, { recursive: true });

  const run = new RunFolder(join(dir, "run"));
  mkdirSync(run.path);

  return [
    {
      name: "png",
      corpus: [
        ...pngs,
        encodePng({ width: 5, height: 4, channels: 3, pixels: noise(60) }),
      ],
      tokens: ["IHDR", "PLTE", "tRNS", "IDAT", "IEND", "gAMA"],
      // Without checksums that are right, hardly anything gets beyond them.
      read: (bytes) => decodeImage(bytes[bytes.length >> 1]! % 4 === 0 ? bytes : repairPng(bytes)),
      limit: pictureLimit,
    },
    { name: "png rows", corpus: rows, read: (b) => decodeImage(pngOf(b)), limit: pictureLimit },
    { name: "jpeg", corpus: jpegs, read: decodeImage, limit: pictureLimit },
    {
      name: "dicom",
      corpus: [
        ...dicoms,
        writeDicomImage({
          ...{ width: 31, height: 24, syntax: SYNTAX.jpeg, allocated: 8, words: [] },
          elements: [[0x7fe00010, "OB", { fragments: [new Uint8Array(0), jpegs[0]!] }]],
        }),
      ],
      tokens: ["DS", "\x28\x00\x50\x10", "1\\2", "-1e9", "\xff\xff\xff\xff"],
      read: decodeImage,
      limit: pictureLimit,
    },
    {
      name: "pixel size",
      corpus: [...jpegs, ...pngs.slice(0, 4), ...dicoms],
      read: (bytes) => pixelSizeOf(file("image", bytes)),
      limit: pictureLimit,
    },
    {
      name: "safetensors",
      corpus: safetensors,
      tokens: ['"dtype":"F32"', "__metadata__", '"shape":[0]', "[", "{", "}", '\\"', "\\u0000"],
      read: (bytes) => decodeSafetensors(bytes),
      limit: tensorLimit,
    },
    {
      name: "checkpoint",
      corpus: [encodeCheckpoint({
        ...{ step: 3, model: new Map(Object.entries(tensors)), method: new Map() },
        ...{ optimizer: new Map([["m", Float32Array.of(1)]]), ema: Float32Array.of(2) },
      })],
      tokens: ['"step":"', "ema", "model."],
      read: (bytes) => decodeCheckpoint(bytes, "checkpoint"),
      limit: tensorLimit,
    },
    {
      name: "encoder",
      corpus: [...safetensors, resnet],
      tokens: ['\\"size\\":', '\\"mean\\":', "conv1.weight", "layer1.0.", "fc."],
      read(bytes) {
        const { arrays } = readEncoderFile(file("encoder.safetensors", bytes));
        return { arrays, architecture: architectureOf(arrays, "encoder") };
      },
      limit: tensorLimit,
    },
    {
      name: "classifier",
      corpus: [classifier],
      tokens: ['\\"labels\\":', '\\"thresholds\\":', "[]", "null", '\\"apart\\":[null]'],
      read: (bytes) => readClassifierFile(file("model.safetensors", bytes)),
      limit: tensorLimit,
    },
    {
      name: "npy",
      corpus: npys,
      tokens: ["'shape': (", "True", "<f8", ","],
      read: (b) => decodeNpy(b),
      limit: tensorLimit,
    },
    {
      name: "pth",
      corpus: pickles,
      tokens: ["\x80\x02", "ccollections\nOrderedDict\n", "q\x01", "h\x01", "(", "t", "R", "."],
      read: (bytes) => decodePth(bytes),
      limit: tensorLimit,
    },
    {
      name: "zip",
      corpus: [
        npz.slice(0, 4096),
        ...pickles.slice(0, 2),
        zipSync({ a: noise(9), "b/c": noise(0) }),
      ],
      tokens: ["PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06"],
      read: (bytes) => readZip(bytes, 1 << 20),
      limit: () => 1 << 20,
    },
    {
      name: "medmnist",
      corpus: [npz],
      tokens: ["'shape': (", "|u1", "<i8"],
      read: (bytes) => readMedmnist(file("pneumoniamnist.npz", bytes)).labels,
      limit: tensorLimit,
    },
    {
      name: "cifar10",
      corpus: [Uint8Array.of(...bytesOf("cat\ndog\n"), ...record)],
      read(bytes) {
        file("cifar/batches.meta.txt", bytes.subarray(0, 8));
        file("cifar/data_batch_1.bin", bytes.subarray(8));
        return readCifar10(cifar);
      },
      limit: tensorLimit,
    },
    {
      name: "stl10",
      corpus: ["cat\ndog\n0 1 2\n", "a\nb\n\n17\n4999\n"].map(bytesOf),
      tokens: ["\n", "\r\n", " ", "5000", "-1"],
      read(bytes) {
        file("stl/test_y.bin", bytes.subarray(0, 1).map((byte) => byte % 4));
        file("stl/class_names.txt", bytes);
        file("stl/fold_indices.txt", bytes.subarray(8));
        return readStl10(stl, bytes.length % 2 === 0 ? { fold: "0" } : {}).labels;
      },
      limit: tensorLimit,
    },
    {
      name: "csv text",
      corpus: tables,
      tokens: ['"', '""', ",", "\n", "\r", "\r\n", "\ufeff"],
      read: (bytes) => parseCsv(text(bytes), "x.csv"),
      limit: tensorLimit,
    },
    {
      name: "csv",
      corpus: tables,
      tokens: ['"', ",", "\n", "filename", "labels", "split", "train", "|", "patient_id"],
      read: (bytes) => readCsv(file("x.csv", bytes), { checkFiles: false }),
      limit: () => 1 << 20,
    },
    {
      name: "spec",
      corpus: specs,
      tokens: ["+", "?", "&", "=", ",", "%", "%2B", "csv:", "phantom", "split=", "limit="],
      read(bytes) {
        const sources = parseSpec(text(bytes));
        const again = formatSpec(parseSpec(formatSpec(sources)));
        if (again !== formatSpec(sources)) {
          throw new Error(`${again} is not ${formatSpec(sources)}`);
        }
        return sources;
      },
      limit: tensorLimit,
    },
    {
      name: "config",
      corpus: configs,
      tokens: ['"', "{", "}", ",", ":", "//", "/*", "*/", "\n", "null", '"seed": '],
      read: (bytes) => parseFlags(flags, ["--config", file("config.jsonc", bytes)]),
      limit: tensorLimit,
    },
    {
      name: "run",
      corpus: [
        bytesOf('{"step":1,"epoch":0.5,"loss":2}\n{"step":2,"epoch":1,"knn":{"auroc":0.5}}\n'),
      ],
      tokens: ["{", "}", "\n", "null", '"step":'],
      read(bytes) {
        overwrite(run.pathOf("metrics"), bytes);
        const rows = run.readMetrics();
        overwrite(run.pathOf("config"), bytes);
        return { rows, config: run.readConfig() };
      },
      limit: tensorLimit,
    },
    {
      name: "pixel cache",
      corpus: [packed],
      read(bytes) {
        mkdirSync(cacheDir, { recursive: true });
        overwrite(pack!, bytes);
        const cache = new PixelCache(cacheDir, 4, 1);
        const pixels = new Uint8Array(16);
        for (const [key, whole] of images) {
          if (cache.read(key, pixels) && !pixels.every((value, i) => value === whole[i])) {
            throw new Error("a damaged image was read from the cache");
          }
        }
        cache.close();
      },
      limit: tensorLimit,
    },
  ];
}

/** Writes a file in place: ext4 flushes one that is cut to nothing and written again, for milliseconds. */
function overwrite(path: string, bytes: Uint8Array): string {
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT);
  writeSync(file, bytes, 0, bytes.length, 0);
  ftruncateSync(file, bytes.length);
  closeSync(file);
  return path;
}

/** Bytes of all arrays in a value. */
export function sizeOfValue(value: unknown, seen: Set<unknown> = new Set()): number {
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (typeof value !== "object" || value === null || seen.has(value)) return 0;
  seen.add(value);
  const parts = value instanceof Map ? [...value.values()] : Object.values(value);
  return parts.reduce((sum: number, part) => sum + sizeOfValue(part, seen), 0);
}
