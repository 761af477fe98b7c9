import assert from "node:assert/strict";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What denow calls besides the programs that are faked here. */
const TOOLS = ["chmod", "cp", "dirname", "env", "grep", "mkdir", "readlink", "sh"];

/** Stands for Deno: answers denow's two questions, and otherwise shows how it was called. */
const FAKE_DENO = `#!/bin/sh
case $* in
  "install "*) echo "deno $*" >&2 ;;
  *Deno.version*) echo "$0" ;;
  *requestAdapter*) read -r adapter < "$STATE/adapter"; echo "$adapter" ;;
  *)
    echo "pid $$"
    echo "in $PWD"
    echo "xdg $XDG_RUNTIME_DIR"
    command -v deno
    for word in "$@"; do echo "<$word>"; done
    exit 7
    ;;
esac
`;

const FAKES = {
  deno: FAKE_DENO,
  // Its version check prints nothing, as for a Deno that is too old.
  "old deno": "#!/bin/sh\nexit 0\n",
  npm: `#!/bin/sh
echo "npm $*" >&2
folder=$3/node_modules/@deno/linux-x64-glibc
mkdir -p "$folder" && cp "$STATE/deno" "$folder/deno"
`,
  "apt-get": `#!/bin/sh
echo "apt-get $*" >&2
[ "$1" = update ] || echo software > "$STATE/adapter"
`,
  sudo: `#!/bin/sh
echo "sudo $*" >&2
[ "$1" = -n ] && shift
[ "$1" = true ] || exec "$@"
`,
  id: "#!/bin/sh\necho 1000\n",
  "root id": "#!/bin/sh\necho 0\n",
  uname: "#!/bin/sh\necho Linux\n",
};

interface Machine {
  /** The project folder, with denow in it. */
  readonly project: string;
  readonly folder: string;
  run(args: string[], options?: RunOptions): Promise<Outcome>;
}

interface RunOptions {
  readonly cwd?: string;
  readonly denow?: string;
  readonly env?: Record<string, string>;
}

interface Outcome {
  readonly code: number;
  readonly pid: number;
  readonly out: string[];
  readonly err: string;
}

/** A folder that stands for a machine with only these programs on PATH, and this adapter. */
async function onMachine(
  programs: (keyof typeof FAKES)[],
  adapter: "none" | "software" | "hardware",
  body: (machine: Machine) => Promise<void>,
): Promise<void> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "wgrad denow ")));
  try {
    const [bin, state, project] = ["bin", "state", "a project"].map((name) => join(folder, name));
    for (const path of [bin!, state!, project!]) mkdirSync(path);
    for (const tool of TOOLS) {
      const found = ["/bin", "/usr/bin"].map((path) => join(path, tool)).find(exists);
      symlinkSync(found!, join(bin!, tool));
    }
    for (const program of programs) {
      writeFileSync(join(bin!, program.split(" ").at(-1)!), FAKES[program], { mode: 0o755 });
    }
    writeFileSync(join(state!, "deno"), FAKES.deno, { mode: 0o755 });
    writeFileSync(join(state!, "adapter"), `${adapter}\n`);
    copyFileSync("denow", join(project!, "denow"));
    chmodSync(join(project!, "denow"), 0o755);

    const run = async (args: string[], options: RunOptions = {}) => {
      const child = new Deno.Command("/bin/sh", {
        args: [options.denow ?? join(project!, "denow"), ...args],
        cwd: options.cwd ?? project!,
        clearEnv: true,
        env: { PATH: bin!, STATE: state!, ...options.env },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const { code, stdout, stderr } = await child.output();
      const out = new TextDecoder().decode(stdout).trimEnd().split("\n");
      return { code, pid: child.pid, out, err: new TextDecoder().decode(stderr) };
    };
    await body({ project: project!, folder, run });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: Deno.build.os === "windows", fn });
}

test("denow passes words, exit code and process to a Deno that is there", () =>
  onMachine(["deno", "uname"], "hardware", async ({ project, run }) => {
    const words = ["run", "a b", 'c"d', "$e", "", "*"];
    const { code, pid, out, err } = await run(words);
    assert.equal(code, 7);
    assert.equal(err, "");
    assert.equal(out[0], `pid ${pid}`, "denow must replace itself by Deno");
    assert.equal(out[1], `in ${project}`);
    assert.deepEqual(out.slice(4), words.map((word) => `<${word}>`));
  }));

test("denow installs the pinned Deno with npm and puts it first on PATH", () =>
  onMachine(["npm", "uname"], "software", async ({ project, run }) => {
    const first = await run(["task", "train"]);
    assert.equal(first.code, 7);
    const version = /^version=(.+)$/m.exec(readFileSync("denow", "utf8"))![1];
    assert.match(first.err, new RegExp(`npm install --prefix .*/a project/\\.deno .*@${version}`));
    assert.match(first.err, /denow: installing Deno/);
    assert.match(first.err, /denow: fetching npm packages\ndeno install --frozen/);
    const binary = join(project, ".deno/node_modules/@deno/linux-x64-glibc/deno");
    assert.deepEqual(first.out.slice(3), [binary, "<task>", "<train>"]);

    const second = await run(["task", "train"]);
    assert.equal(second.err, "", "the second run finds what the first installed");
  }));

test("denow replaces a Deno that is too old", () =>
  onMachine(["old deno", "npm", "uname"], "hardware", async ({ run }) => {
    const { code, err } = await run(["task", "train"]);
    assert.equal(code, 7);
    assert.match(err, /installing Deno/);
  }));

test("denow says what to do where it cannot install Deno", () =>
  onMachine(["uname"], "hardware", async ({ run }) => {
    const { code, err } = await run(["task", "train"]);
    assert.equal(code, 1);
    assert.match(err, /install npm, or curl/);
  }));

test("denow installs a driver as root where Deno finds no adapter", () =>
  onMachine(["deno", "uname", "root id", "apt-get"], "none", async ({ run }) => {
    const { code, err } = await run(["task", "train"]);
    assert.equal(code, 7);
    assert.match(
      err,
      /apt-get update\napt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1\n/,
    );
  }));

test("denow installs a driver through sudo where sudo asks nothing", () =>
  onMachine(["deno", "uname", "id", "sudo", "apt-get"], "none", async ({ run }) => {
    const { code, err } = await run(["task", "train"]);
    assert.equal(code, 7);
    assert.match(err, /sudo -n env DEBIAN_FRONTEND=noninteractive/);
    assert.match(err, /apt-get update\napt-get install/);
  }));

test("denow prints the command where it may not install a driver", () =>
  onMachine(["deno", "uname", "id", "apt-get"], "none", async ({ run }) => {
    const { code, err, out } = await run(["task", "train"]);
    assert.equal(code, 1);
    assert.equal(
      err,
      "denow: no Vulkan driver. As root, run: " +
        "apt-get update && apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1\n",
    );
    assert.deepEqual(out, [""], "Deno was not run");
  }));

test("denow lets the doctor speak where there is neither adapter nor apt-get", () =>
  onMachine(["deno", "uname", "id"], "none", async ({ run }) => {
    const train = await run(["task", "train"]);
    assert.equal(train.code, 1);
    assert.match(train.err, /denow task doctor/);
    const doctor = await run(["task", "doctor"]);
    assert.equal(doctor.code, 7);
    assert.deepEqual(doctor.out.slice(4), ["<task>", "<doctor>"]);
  }));

test("denow sets XDG_RUNTIME_DIR to a private folder, unless it is set", () =>
  onMachine(["deno", "uname"], "software", async ({ project, folder, run }) => {
    const { out } = await run(["x"]);
    const directory = join(project, ".deno/run");
    assert.equal(out[2], `xdg ${directory}`);
    assert.equal(statSync(directory).mode & 0o777, 0o700);
    const kept = await run(["x"], { env: { XDG_RUNTIME_DIR: folder } });
    assert.equal(kept.out[2], `xdg ${folder}`);
  }));

test("denow runs the project's tasks from any folder, through symbolic links", () =>
  onMachine(["deno", "uname"], "hardware", async ({ project, folder, run }) => {
    symlinkSync("a project/denow", join(folder, "one"));
    symlinkSync(join(folder, "one"), join(folder, "two"));
    const options = { cwd: folder, denow: "./two" };
    const task = await run(["task", "train"], options);
    assert.equal(task.out[1], `in ${project}`);
    const other = await run(["run", "x.ts"], options);
    assert.equal(other.out[1], `in ${folder}`, "what is no task stays where it was called");
  }));

Deno.test("denow and denow.cmd pin one version", () => {
  const [unix, windows] = ["denow", "denow.cmd"].map((file) => readFileSync(file, "utf8"));
  const version = /^version=(\d+\.\d+\.\d+)$/m.exec(unix!)![1];
  assert.ok(windows!.includes(`set "version=${version}"`));
});
