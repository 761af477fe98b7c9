import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { advice, describeMachine, type Machine } from "../src/commands/machine.ts";

function withFiles(files: Record<string, string>, body: (root: string) => void): void {
  const root = mkdtempSync(join(tmpdir(), "wgrad-machine-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    body(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

function linux(about: Partial<Machine>): string {
  const machine = { os: "linux", distribution: "", container: false, gpus: [], drivers: [] };
  return advice({ ...machine, ...about }).join("\n");
}

Deno.test("describeMachine() reads distribution, container, GPUs and drivers", () => {
  const files = {
    "etc/os-release": 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n',
    ".dockerenv": "",
    "sys/class/drm/card0/device/vendor": "0x1002\n",
    "sys/class/drm/card1/device/vendor": "0x10de\n",
    "sys/class/drm/card1-HDMI-A-1/status": "connected\n",
    "dev/nvidiactl": "",
    "usr/share/vulkan/icd.d/radeon_icd.json": "",
    "etc/vulkan/icd.d/nvidia_icd.json": "",
  };
  withFiles(files, (root) => {
    assert.deepEqual(describeMachine("linux", root), {
      os: "linux",
      distribution: "linuxmint ubuntu debian",
      container: true,
      gpus: ["AMD", "NVIDIA"],
      drivers: ["nvidia_icd.json", "radeon_icd.json"],
    });
  });
  withFiles({}, (root) => {
    assert.deepEqual(describeMachine("linux", root), {
      os: "linux",
      distribution: "",
      container: false,
      gpus: [],
      drivers: [],
    });
  });
});

Deno.test("advice() names the packages of each system", () => {
  assert.match(linux({ distribution: "ubuntu debian" }), /apt-get install -y mesa-vulkan-drivers/);
  assert.match(linux({ distribution: "fedora" }), /dnf install mesa-vulkan-drivers/);
  assert.match(linux({ distribution: "arch" }), /pacman/);
  assert.match(linux({ distribution: "alpine" }), /from your distribution/);
  const elsewhere = (os: string) => advice({ ...describeMachine(os, "/nowhere") }).join("\n");
  assert.match(elsewhere("darwin"), /Metal/);
  assert.match(elsewhere("windows"), /Direct3D 12/);
  assert.match(elsewhere("freebsd"), /freebsd/);
});

Deno.test("advice() knows GPUs that a container hides", () => {
  const nvidia = linux({ distribution: "debian", container: true, gpus: ["NVIDIA"] });
  assert.match(nvidia, /NVIDIA_DRIVER_CAPABILITIES=all/);
  assert.match(linux({ container: true, gpus: ["AMD"] }), /--device \/dev\/dri/);
  assert.match(linux({ distribution: "fedora", gpus: ["NVIDIA"] }), /akmod-nvidia/);
  assert.doesNotMatch(linux({ distribution: "debian" }), /NVIDIA|docker/);
});

async function doctor(env: Record<string, string> = {}) {
  const { code, stdout } = await new Deno.Command("deno", {
    args: ["run", "-q", "-P=doctor", "cli.ts", "doctor"],
    env,
    stderr: "null",
  }).output();
  return { code, out: new TextDecoder().decode(stdout) };
}

Deno.test("doctor finds this machine's kernels right", async () => {
  const { code, out } = await doctor();
  assert.match(out, /^Adapter .+$/m);
  for (const kernel of ["matmul", "conv2d", "sum"]) {
    assert.match(out, new RegExp(`^Kernel +${kernel}: right$`, "m"));
  }
  assert.equal(code, 0);
});

Deno.test({
  name: "doctor advises where there is no adapter, with exit code 1",
  ignore: Deno.build.os === "windows",
  async fn() {
    const { code, out } = await doctor({ DENO_WEBGPU_BACKEND: "dx12" });
    assert.match(out, /^Adapter +none$/m);
    assert.match(out, /What helps:\n {2}\S/);
    assert.equal(code, 1);
  },
});
