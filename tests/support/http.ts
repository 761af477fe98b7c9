/** An HTTP server that answers as badly as a test wants. */

/** What came. */
export interface Asked {
  readonly path: string;
  readonly headers: Headers;
}

/** What goes back; `length` and `connection` are added unless they are given. */
export interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** Bytes of the body after which the connection is cut, or falls silent. */
  readonly cutAfter?: number;
  readonly silentAfter?: number;
}

/** Runs a test beside a server at `host`; `asked` grows with the requests. */
export async function withServer(
  answer: (asked: Asked, count: number) => Answer | Promise<Answer>,
  test: (host: string, asked: Asked[]) => Promise<void>,
): Promise<void> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const asked: Asked[] = [];
  const open = new Set<Deno.Conn>();
  const serve = async (connection: Deno.Conn) => {
    const request = await readHead(connection);
    if (request === null) return;
    asked.push(request);
    const { status = 200, headers = {}, body = new Uint8Array(), cutAfter, silentAfter } =
      await answer(
        request,
        asked.length,
      );
    const all = { "content-length": String(body.length), connection: "close", ...headers };
    const lines = Object.entries(all).filter(([, value]) => value !== "").map(([k, v]) =>
      `${k}: ${v}`
    );
    const head = `HTTP/1.1 ${status} Whatever\r\n${lines.join("\r\n")}\r\n\r\n`;
    await writeAll(connection, new TextEncoder().encode(head));
    await writeAll(connection, body.subarray(0, cutAfter ?? silentAfter));
    if (silentAfter !== undefined) await connection.read(new Uint8Array(1));
  };
  const loop = (async () => {
    for await (const connection of listener) {
      open.add(connection);
      // A client that hangs up is no failure of the server.
      serve(connection).catch(() => {}).finally(() => {
        if (open.delete(connection)) connection.close();
      });
    }
  })();
  try {
    await test(`127.0.0.1:${(listener.addr as Deno.NetAddr).port}`, asked);
  } finally {
    listener.close();
    await loop;
    for (const connection of open) connection.close();
    open.clear();
  }
}

async function readHead(connection: Deno.Conn): Promise<Asked | null> {
  let text = "";
  const buffer = new Uint8Array(4096);
  while (!text.includes("\r\n\r\n")) {
    const count = await connection.read(buffer);
    if (count === null) return null;
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  const [first = "", ...lines] = text.split("\r\n").filter((line) => line !== "");
  const headers = new Headers(lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  }));
  return { path: first.split(" ")[1]!, headers };
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}
