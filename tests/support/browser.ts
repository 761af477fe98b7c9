/** A headless Chromium, where there is one, spoken to by its DevTools protocol on 127.0.0.1. */

/** What a page did and looked like. */
export interface Visit {
  /** Console errors, uncaught exceptions and what the browser's log calls an error. */
  readonly errors: readonly string[];
  /** URLs asked for, without the page itself and `data:`. */
  readonly requests: readonly string[];
  /** What an expression, or the promise that it is, gives in the page. */
  evaluate(expression: string): Promise<unknown>;
  /** The whole page as PNG. */
  screenshot(): Promise<Uint8Array>;
}

/** How a page is looked at. */
export interface View {
  readonly width: number;
  readonly scheme?: "light" | "dark";
  readonly media?: "screen" | "print";
}

/** The name of an installed Chromium, or null. */
export async function findChromium(): Promise<string | null> {
  const names = ["chromium", "chromium-browser", "google-chrome"];
  const { code, stdout } = await new Deno.Command("/bin/sh", {
    args: ["-c", names.map((name) => `command -v ${name}`).join(" || ")],
    stderr: "null",
  }).output();
  return code === 0 ? new TextDecoder().decode(stdout).trim() : null;
}

/** Opens a file in a browser of its own, once for each view. */
export async function visit(
  program: string,
  file: string,
  views: readonly View[],
  look: (visit: Visit, view: View) => Promise<void>,
): Promise<void> {
  const profile = await Deno.makeTempDir();
  // WebGPU runs on the browser's own software adapter, which every machine has.
  const flags = "--headless=new --no-sandbox --no-first-run --remote-debugging-port=0 " +
    "--enable-unsafe-webgpu --enable-features=Vulkan --use-webgpu-adapter=swiftshader";
  const browser = new Deno.Command("/bin/sh", {
    // The shell becomes the browser, so that killing the one ends the other.
    args: ["-c", `exec "$0" ${flags} --user-data-dir="$1" about:blank`, program, profile],
    stdout: "null",
    stderr: "piped",
  }).spawn();
  try {
    const address = await addressIn(browser.stderr);
    const targets = await (await fetch(`http://${address}/json/list`)).json();
    const page = targets.find(({ type }: { type: string }) => type === "page");
    for (const view of views) await open(page.webSocketDebuggerUrl, file, view, look);
  } finally {
    browser.kill("SIGTERM");
    await browser.status;
    await Deno.remove(profile, { recursive: true }).catch(() => {});
  }
}

/** Host and port that a starting browser writes. */
async function addressIn(stderr: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  const reader = stderr.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the browser ended: ${text}`);
    text += value;
    const address = /ws:\/\/([^/]+)\//.exec(text)?.[1];
    if (address === undefined) continue;
    // What else it writes is let go, so that it never waits.
    (async () => {
      while (!(await reader.read()).done);
    })();
    return address;
  }
}

async function open(
  url: string,
  file: string,
  { width, scheme = "light", media = "screen" }: View,
  look: (visit: Visit, view: View) => Promise<void>,
): Promise<void> {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  const waiting = new Map<number, (result: Record<string, unknown>) => void>();
  const [errors, requests]: [string[], string[]] = [[], []];
  let loaded = () => {};
  // deno-lint-ignore no-explicit-any
  const events: Record<string, (params: any) => void> = {
    "Runtime.exceptionThrown": ({ exceptionDetails }) => errors.push(exceptionDetails.text),
    "Runtime.consoleAPICalled": ({ type, args }) => {
      if (type === "error") errors.push(JSON.stringify(args));
    },
    "Log.entryAdded": ({ entry }) => {
      if (entry.level === "error") errors.push(entry.text);
    },
    "Network.requestWillBeSent": ({ request }) => {
      if (request.url !== `file://${file}` && !request.url.startsWith("data:")) {
        requests.push(request.url);
      }
    },
    "Page.loadEventFired": () => loaded(),
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.id !== undefined) {
      waiting.get(message.id)?.(message.result ?? message.error);
      waiting.delete(message.id);
    } else events[message.method]?.(message.params);
  };
  let count = 0;
  // deno-lint-ignore no-explicit-any
  const send = (method: string, params: Record<string, unknown> = {}): Promise<any> => {
    const id = ++count;
    socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve) => waiting.set(id, resolve));
  };
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  await send("Emulation.setDeviceMetricsOverride", {
    ...{ width, height: 900, deviceScaleFactor: 1, mobile: width < 600 },
  });
  await send("Emulation.setEmulatedMedia", {
    media,
    features: [{ name: "prefers-color-scheme", value: scheme }],
  });
  const ready = new Promise<void>((resolve) => loaded = resolve);
  await send("Page.navigate", { url: `file://${file}` });
  await ready;
  try {
    await look({
      errors,
      requests,
      evaluate: async (expression) =>
        (await send("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true }))
          .result.value,
      screenshot: async () => {
        const options = { format: "png", captureBeyondViewport: true };
        const { cssContentSize } = await send("Page.getLayoutMetrics");
        const clip = { x: 0, y: 0, width, height: cssContentSize.height, scale: 1 };
        const { data } = await send("Page.captureScreenshot", { ...options, clip });
        return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      },
    }, { width, scheme, media });
  } finally {
    socket.close();
  }
}
