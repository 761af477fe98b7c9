/**
 * TensorBoard's event files: records of `Event` messages, each between checksums.
 * Formats: https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto,
 * https://www.tensorflow.org/tutorials/load_data/tfrecord.
 */
import { PbfWriter } from "./protobuf.ts";

/** What an event says: the kind of file, which is said first; that a session starts; or some scalars. */
export type EventContent = "file version" | "session start" | Readonly<Record<string, number>>;

/** An event of a file. */
export interface TensorBoardEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  /** Training steps done. TensorBoard drops what it read of this and later steps where a session starts. */
  readonly step: number;
  /** Scalars are kept as float32. */
  readonly content: EventContent;
}

const sessionStart = 1;

/** The bytes of an event, to be appended to its file. */
export function encodeEvent({ wallTime, step, content }: TensorBoardEvent): Uint8Array {
  const event = new PbfWriter();
  event.writeDoubleField(1, wallTime);
  event.writeVarintField(2, step);
  if (content === "file version") {
    event.writeStringField(3, "brain.Event:2");
  } else if (content === "session start") {
    event.writeMessage(7, (status, log) => log.writeVarintField(1, status), sessionStart);
  } else {
    event.writeMessage(5, writeSummary, content);
  }
  return frame(event.finish());
}

function writeSummary(scalars: Readonly<Record<string, number>>, summary: PbfWriter): void {
  for (const scalar of Object.entries(scalars)) {
    summary.writeMessage(1, ([tag, value], message) => {
      message.writeStringField(1, tag);
      message.writeFloatField(2, value);
    }, scalar);
  }
}

/** A record: length, checksum of the length, data, checksum of the data. */
function frame(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(12 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(crc32c(record.subarray(0, 8))), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, masked(crc32c(data)), true);
  return record;
}

/** Rotated and shifted, because checksums of data that hold checksums are poor ones. */
function masked(crc: number): number {
  return ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte >>> 1 ^ (byte & 1 ? 0x82f63b78 : 0);
  return byte;
});

/** The CRC-32C (Castagnoli) of bytes: RFC 3720, appendix B.4. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crc >>> 8 ^ crcTable[(crc ^ byte) & 255]!;
  return ~crc >>> 0;
}
