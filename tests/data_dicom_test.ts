import assert from "node:assert/strict";
import { decodeImage, loadImage } from "../src/data/decode/decode.ts";
import { openDataset } from "../src/data/open.ts";
import { UserError } from "../src/errors.ts";
import { Random } from "../src/random.ts";
import {
  type DicomElement,
  type DicomImage,
  SYNTAX,
  writeDicom,
  writeDicomImage,
  writeRle,
} from "./support/dicom.ts";
import { withFiles } from "./support/files.ts";
import { readFixture } from "./support/fixture.ts";

const { jpeg: _, ...UNPACKED } = SYNTAX;

/** The gray levels of a file of one row of these values, 16 bits stored unless said otherwise. */
async function levels(values: readonly number[], image: Partial<DicomImage> = {}) {
  const words = values.map((value) => value & 0xffff);
  const file = writeDicomImage({ width: values.length, height: 1, words, ...image });
  const { pixels, channels } = await decodeImage(file);
  assert.equal(channels, 1);
  return Array.from(pixels);
}

const decimal = (tag: number, value: number | string): DicomElement => [tag, "DS", `${value}`];
const window = (center: number | string, width: number | string) => [
  decimal(0x00281050, center),
  decimal(0x00281051, width),
];
const rescale = (slope: number, intercept: number) => [
  decimal(0x00281053, slope),
  decimal(0x00281052, intercept),
];

Deno.test("DICOM: every syntax, depth and sign stretches from the least to the greatest value", async () => {
  const random = new Random(0, "dicom test");
  const [width, height] = [7, 5];
  let count = 0;
  for (const syntax of Object.values(UNPACKED)) {
    for (
      const [allocated, stored, highBit] of [[8, 8, 7], [8, 6, 5], [16, 16, 15], [16, 12, 11], [
        16,
        10,
        13,
      ]] as const
    ) {
      for (const signed of [false, true]) {
        // Values of a narrow range, in runs; what the other bits hold is not to be seen.
        const base = random.integer(2 ** stored);
        const values = Array.from(
          { length: width * height },
          (_, i) => (base + (i % 4 < 2 ? 3 : random.integer(2 ** (stored - 1)))) % 2 ** stored,
        );
        const words = values.map((value) => {
          const noise = random.integer(2 ** allocated);
          const shift = highBit + 1 - stored;
          const mask = (2 ** stored - 1) << shift;
          return (noise & ~mask) | (value << shift);
        });
        const numbers = values.map((value) =>
          signed && value >= 2 ** (stored - 1) ? value - 2 ** stored : value
        );
        const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
        const picture = await decodeImage(
          writeDicomImage({ syntax, width, height, allocated, stored, highBit, signed, words }),
        );
        assert.deepEqual(
          picture,
          {
            width,
            height,
            channels: 1,
            pixels: Uint8Array.from(numbers, (v) => Math.round((255 * (v - low)) / (high - low))),
          },
          `${syntax} ${allocated} ${stored} ${highBit} ${signed}`,
        );
        count++;
      }
    }
  }
  assert.equal(count, 5 * 5 * 2);
});

Deno.test("DICOM: windows follow the standard's examples and formula", async () => {
  // PS3.3, C.11.2.1.2.1: below and at the first value black, above the second white.
  const signed = true;
  const examples = [
    { center: 2048, width: 4096, black: [-5, 0], white: [4096, 9000], middle: [2047, 2048] },
    { center: 2048, width: 1, black: [0, 2047], white: [2048, 4095], middle: [] },
    { center: 0, width: 100, black: [-300, -50], white: [50, 99], middle: [-1, 0] },
    { center: 0, width: 1, black: [-9, -1], white: [0, 9], middle: [] },
  ];
  for (const { center, width, black, white, middle } of examples) {
    const elements = window(center, width);
    assert.deepEqual(await levels(black, { signed, elements }), [0, 0]);
    assert.deepEqual(await levels(white, { signed, elements }), [255, 255]);
    // Half way, between two values, lies 127.5.
    if (middle.length > 0) {
      const [below, above] = await levels(middle, { signed, elements });
      assert.ok(below! <= 127 && above! >= 128 && below! + above! === 255, `${below} ${above}`);
    }
  }

  const values = Array.from({ length: 400 }, (_, i) => 3 * i);
  assert.deepEqual(
    await levels(values, { elements: window(" 600.5\\40 ", "301\\80") }),
    values.map((x) => Math.round(255 * Math.min(Math.max((x - 600) / 300 + 0.5, 0), 1))),
  );
  const shape = (name: string): DicomElement => [0x00281056, "CS", name];
  assert.deepEqual(
    await levels(values, { elements: [...window(600, 300), shape("LINEAR_EXACT")] }),
    values.map((x) => Math.round(255 * Math.min(Math.max((x - 600) / 300 + 0.5, 0), 1))),
  );
  assert.deepEqual(
    await levels(values, { elements: [...window(600, 300), shape("SIGMOID")] }),
    values.map((x) => Math.round(255 / (1 + Math.exp(-4 * (x - 600) / 300)))),
  );
});

Deno.test("DICOM: slope and intercept come before the window", async () => {
  const values = Array.from({ length: 64 }, (_, i) => 16 * i);
  const plain = await levels(values, { elements: window(500, 401) });
  const shifted = values.map((value) => (value + 1000) / 2);
  for (
    const [slope, intercept, stored] of [[2, -1000, shifted], [
      -4,
      4000,
      values.map((v) => 1000 - v / 4),
    ]] as const
  ) {
    const elements = [...rescale(slope, intercept), ...window(500, 401)];
    assert.deepEqual(await levels(stored, { elements }), plain);
  }
  // A falling slope turns the image round; without a window, only its sign is seen.
  const stretched = await levels(values);
  assert.deepEqual(await levels(values, { elements: rescale(0.37, 12) }), stretched);
  assert.deepEqual(
    await levels(values, { elements: rescale(-1, 0) }),
    stretched.map((level) => 255 - level),
  );
  assert.deepEqual(await levels([7, 7, 7]), [0, 0, 0]);
});

Deno.test("DICOM: MONOCHROME1 is the negative of MONOCHROME2", async () => {
  const values = Array.from({ length: 200 }, (_, i) => i * i);
  for (const elements of [[], window(9000, 7000)]) {
    const positive = await levels(values, { elements });
    const negative = await levels(values, { elements, photometric: "MONOCHROME1" });
    assert.deepEqual(negative, positive.map((level) => 255 - level));
    assert.deepEqual([positive[0], negative[0]], [0, 255]);
  }
});

Deno.test("DICOM: RGB comes by pixel or by color, in 8 and 16 bits", async () => {
  const random = new Random(0, "dicom rgb");
  const [width, height, channels] = [5, 3, 3] as const;
  for (const syntax of Object.values(UNPACKED)) {
    for (const [allocated, stored] of [[8, 8], [16, 12]] as const) {
      for (const planar of [0, 1] as const) {
        const most = 2 ** stored - 1;
        const words = Array.from({ length: 45 }, () => random.integer(most + 1));
        // A window is for gray.
        const elements = window(10, 20);
        const image = { syntax, width, height, channels, allocated, stored, planar, words };
        assert.deepEqual(
          await decodeImage(writeDicomImage({ ...image, elements })),
          {
            ...{ width, height, channels },
            pixels: Uint8Array.from(words, (word) => Math.round((word * 255) / most)),
          },
          `${syntax} ${stored} ${planar}`,
        );
      }
    }
  }
});

Deno.test("DICOM: reads JPEG baseline, in one fragment and in several, under a window", async () => {
  const fixture = await readFixture("resize");
  for (const [name, channels] of [["jpeg_gray.file", 1], ["jpeg_rgb.file", 3]] as const) {
    const jpeg = fixture.bytes(name).data;
    const plain = await decodeImage(jpeg);
    const { width, height } = plain;
    assert.equal(plain.channels, channels);
    for (const cuts of [[0], [0, 2, 100, 340]]) {
      const fragments = cuts.map((cut, i) => jpeg.subarray(cut, cuts[i + 1]));
      const photometric = channels === 1 ? "MONOCHROME2" : "YBR_FULL_422";
      const image = { syntax: SYNTAX.jpeg, width, height, channels, photometric, words: [] };
      const file = writeDicomImage({
        ...image,
        allocated: 8,
        elements: [[0x7fe00010, "OB", { fragments }], ...window(128, 256)],
      });
      assert.deepEqual(await decodeImage(file), plain);
    }
  }
});

Deno.test("DICOM: pixels that look like a sequence, sequences that hold pixels, bytes that are not swapped", async () => {
  const item = [0xfffe, 0xe000, 0, 0, 0x1234, 0xffff];
  for (const syntax of Object.values(UNPACKED)) {
    assert.deepEqual(
      await levels(item, { syntax, elements: window(32768, 65536) }),
      item.map((word) => Math.round((255 * word) / 65535)),
    );
  }
  // An icon (0088,0200) is an image inside the image.
  const icon = writeDicom(SYNTAX.explicit, [[0x7fe00010, "OW", [1, 2, 3]]]).subarray(
    132 + 12 + 14 + 28,
  );
  const header = Uint8Array.of(0xfe, 0xff, 0, 0xe0, icon.length, 0, 0, 0);
  const sequence = Uint8Array.of(...header, ...icon);
  assert.deepEqual(await levels([0, 1], { elements: [[0x00880200, "SQ", sequence]] }), [0, 255]);
  // Of 8 bits, OW puts two into a word, which big endian turns round; OB does not.
  const words = [10, 20, 30, 40, 50, 60];
  const image = {
    syntax: SYNTAX.bigEndian,
    allocated: 8,
    words,
    elements: window(128, 256),
  } as const;
  assert.deepEqual(await levels(words, image), words);
  const bytes: DicomElement = [0x7fe00010, "OB", Uint8Array.from(words)];
  assert.deepEqual(await levels(words, { ...image, elements: [...image.elements, bytes] }), words);
});

Deno.test("DICOM: says which attribute or transfer syntax it does not read", async () => {
  const us = (tag: number, value: number): DicomElement => [tag, "US", [value]];
  const cs = (tag: number, value: string): DicomElement => [tag, "CS", value];
  const gray = { width: 4, height: 3, words: Array(12).fill(5) };
  const mistakes: [Partial<DicomImage> & { elements?: readonly DicomElement[] }, RegExp][] = [
    [
      { syntax: "1.2.840.10008.1.2.4.70" },
      /Transfer Syntax UID \(0002,0010\) is 1\.2\.840\.10008\.1\.2\.4\.70, JPEG Lossless, First/,
    ],
    [{ syntax: "1.2.840.10008.1.2.4.90" }, /JPEG 2000 Lossless; decompress it/],
    [{ syntax: "1.2.3" }, /is 1\.2\.3, of no images that are known here/],
    [{ elements: [[0x00280008, "IS", "12"]] }, /Number of Frames \(0028,0008\) is 12; /],
    [{ elements: [us(0x00280010, 0)] }, /DICOM header says 4 × 0 pixels/],
    [{ elements: [us(0x00280011, 65535)] }, /DICOM header says 65535 × 3 pixels; from 1 to/],
    [{ elements: [[0x00280010, "US", ""]] }, /Rows \(0028,0010\) is missing/],
    [{ elements: [us(0x00280100, 32)] }, /Bits Allocated \(0028,0100\) is 32; read are 8, 16/],
    [{ elements: [us(0x00280101, 17)] }, /Bits Stored \(0028,0101\) is 17 of 16/],
    [{ elements: [us(0x00280102, 16)] }, /High Bit \(0028,0102\) is 16, with 16 bits stored/],
    [{ stored: 12, highBit: 10 }, /High Bit \(0028,0102\) is 10, with 12 bits stored in 16/],
    [{ elements: [us(0x00280103, 2)] }, /Pixel Representation \(0028,0103\) is 2; read are 0, 1/],
    [{ elements: [us(0x00280002, 4)] }, /Samples per Pixel \(0028,0002\) is 4; read are 1, 3/],
    [{ photometric: "PALETTE COLOR" }, /\(0028,0004\) is "PALETTE COLOR"; read are MONOCHROME1, /],
    [{ channels: 3, photometric: "YBR_FULL" }, /\(0028,0004\) is "YBR_FULL"; read are RGB/],
    [{ elements: [cs(0x00280004, "")] }, /Photometric Interpretation \(0028,0004\) is null/],
    [{ elements: rescale(0, 1) }, /Rescale Slope \(0028,1053\) is 0/],
    [{ elements: window("wide", 1) }, /Window Center \(0028,1050\) is "wide", no number/],
    [{ elements: window(1, 0) }, /Window Width \(0028,1051\) is 0, too narrow for LINEAR/],
    [{ elements: [...window(1, 0), cs(0x00281056, "SIGMOID")] }, /is 0, too narrow for SIGMOID/],
    [{ elements: [...window(1, 9), cs(0x00281056, "CUBIC")] }, /VOI LUT Function .* is "CUBIC"/],
    [
      { elements: [[0x00283000, "SQ", new Uint8Array()]] },
      /Modality LUT Sequence \(0028,3000\) is/,
    ],
    [{ elements: [[0x7fe00010, "OW", ""]] }, /has no Pixel Data \(7fe0,0010\)/],
    [{ elements: [[0x7fe00010, "OW", [1, 2]]] }, /are 4 bytes, too few for 4 × 3 × 1 of 16 bits/],
    [{ elements: [[0x7fe00010, "OW", { fragments: [] }]] }, /too few for 4 × 3/],
    [{ syntax: SYNTAX.jpeg }, /Pixel Data \(7fe0,0010\) are not encapsulated/],
    [{ syntax: SYNTAX.jpeg, elements: [[0x7fe00010, "OB", { fragments: [] }]] }, /JPEG is trunc/],
    [{ syntax: SYNTAX.rle, elements: [[0x7fe00010, "OW", [1, 2]]] }, /are not encapsulated/],
    ...[
      [{ fragments: [new Uint8Array(60)] }, /RLE header is truncated/],
      [
        { fragments: [writeRle({ ...gray, allocated: 8 })] },
        /RLE header has 1 segments, expected 2/,
      ],
      [{ fragments: [writeRle({ ...gray, words: [1, 2, 3] })] }, /an RLE segment .* as many bytes/],
      [
        { fragments: [writeRle({ ...gray, words: Array(20).fill(3) })] },
        /an RLE segment .* as many/,
      ],
    ].map(([value, message]) =>
      [
        { syntax: SYNTAX.rle, elements: [[0x7fe00010, "OW", value] as DicomElement] },
        message as RegExp,
      ] as [Partial<DicomImage>, RegExp]
    ),
  ];
  for (const [image, message] of mistakes) {
    await assert.rejects(
      decodeImage(writeDicomImage({ ...gray, ...image })),
      (error) => error instanceof UserError && message.test(error.message),
      String(message),
    );
  }
  const jpeg = (await readFixture("resize")).bytes("jpeg_gray.file").data;
  const elements: DicomElement[] = [[0x7fe00010, "OB", { fragments: [jpeg] }]];
  await assert.rejects(
    decodeImage(writeDicomImage({ ...gray, syntax: SYNTAX.jpeg, allocated: 8, elements })),
    /header says 4 × 3 × 1 of 8 bits, its JPEG 3\d × 2\d × 1 of 8/,
  );
});

Deno.test("DICOM: a file cut short or damaged anywhere is an error of the user's, or a picture", async () => {
  const random = new Random(0, "dicom damage");
  const words = Array.from({ length: 12 }, (_, i) => 20 * i);
  for (const syntax of Object.values(UNPACKED)) {
    const file = writeDicomImage({
      syntax,
      width: 4,
      height: 3,
      allocated: 8,
      words,
      elements: window(90, 90),
    });
    const damaged = [
      ...Array.from({ length: file.length - 132 }, (_, i) => file.slice(0, 132 + i)),
      ...Array.from({ length: 400 }, () => {
        const copy = file.slice();
        copy[132 + random.integer(file.length - 132)] = random.integer(256);
        return copy;
      }),
    ];
    let refused = 0;
    for (const bytes of damaged) {
      try {
        const { pixels } = await decodeImage(bytes);
        assert.ok(pixels.length > 0);
      } catch (error) {
        assert.ok(error instanceof UserError, `${error}`);
        refused++;
      }
    }
    assert.ok(refused >= file.length - 132 - 40, `${syntax}: ${refused} of ${damaged.length}`);
  }
});

Deno.test("DICOM: lies in folders beside other images, and is read for one channel and three", async () => {
  const file = writeDicomImage({ width: 2, height: 2, words: [0, 85, 170, 255], allocated: 8 });
  await withFiles({ "a/x.dcm": file, "b/y.DICOM": file }, async (dir) => {
    const { examples, load } = await openDataset(`folder:${dir}`);
    assert.deepEqual(examples.map(({ id }) => id), ["a/x.dcm", "b/y.DICOM"]);
    assert.deepEqual([...await load(0, 2, 1)], [0, 85, 170, 255]);
    assert.deepEqual([...await load(1, 2, 3)].slice(0, 6), [0, 0, 0, 85, 85, 85]);
    await Deno.writeFile(`${dir}/a/x.dcm`, file.subarray(0, 200));
    await assert.rejects(
      loadImage(`${dir}/a/x.dcm`, 2, 1),
      (error) =>
        error instanceof UserError && error.message.startsWith(`${dir}/a/x.dcm: the DICOM`),
    );
  });
});
