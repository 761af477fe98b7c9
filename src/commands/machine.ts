/** What the operating system shows of a machine's GPU, and what to install where Deno finds none. */

import { join } from "node:path";

/** Where advice depends on the machine. */
export interface Machine {
  /** As Deno names it: `linux`, `darwin`, `windows`, … */
  readonly os: string;
  /** Identifiers of a Linux distribution and its ancestors: `ubuntu debian`. */
  readonly distribution: string;
  /** Whether this is a container (Docker, Podman). */
  readonly container: boolean;
  /** Makers of GPUs that the kernel knows of. */
  readonly gpus: readonly Gpu[];
  /** Vulkan drivers: the names of their manifests. */
  readonly drivers: readonly string[];
}

/** A maker of GPUs. */
export type Gpu = "NVIDIA" | "AMD" | "Intel";

const PCI_VENDORS: Readonly<Record<string, Gpu>> = {
  "0x10de": "NVIDIA",
  "0x1002": "AMD",
  "0x8086": "Intel",
};

/** Looks at this machine; `root` is where its files lie. */
export function describeMachine(os: string, root = "/"): Machine {
  if (os !== "linux") return { os, distribution: "", container: false, gpus: [], drivers: [] };
  const list = (path: string) => show("ls", join(root, path)).split("\n").filter(Boolean);
  const read = (path: string) => show("cat", join(root, path));

  const ids = [...read("etc/os-release").matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)];
  const vendors = list("sys/class/drm").map((card) => read(`sys/class/drm/${card}/device/vendor`));
  if (list("dev/nvidiactl").length) vendors.push("0x10de");
  return {
    os,
    distribution: ids.map(([, id]) => id).join(" "),
    container: [".dockerenv", "run/.containerenv"].some((file) => list(file).length),
    gpus: [...new Set(vendors.flatMap((vendor) => PCI_VENDORS[vendor.trim()] ?? []))],
    drivers: ["etc/vulkan/icd.d", "usr/share/vulkan/icd.d"].flatMap(list).sort(),
  };
}

/**
 * What `ls` or `cat` prints of a path; empty where there is none. Deno itself reads /sys and /dev only
 * with all permissions.
 */
function show(program: "ls" | "cat", path: string): string {
  const { stdout } = new Deno.Command(program, { args: [path], stderr: "null" }).outputSync();
  return new TextDecoder().decode(stdout);
}

/** What to do on a machine where Deno finds no adapter, or only a software one. */
export function advice(machine: Machine): string[] {
  switch (machine.os) {
    case "linux":
      return linuxAdvice(machine);
    case "darwin":
      return [
        "Deno uses Metal, which every Mac since 2012 has: update macOS.",
        "Virtual machines show no GPU unless they are given one.",
      ];
    case "windows":
      return [
        "Deno uses Direct3D 12 or Vulkan: install the driver of the GPU's maker (NVIDIA, AMD, Intel).",
        "Without a GPU, Windows' own software adapter serves; Windows Server needs a desktop for it.",
        "A remote desktop session may hide the GPU: try at the machine itself.",
      ];
    default:
      return [`Deno needs a Vulkan driver; on ${machine.os} that is up to the system.`];
  }
}

function linuxAdvice({ distribution, container, gpus }: Machine): string[] {
  const is = (...names: string[]) => names.some((name) => distribution.split(" ").includes(name));
  const lines: string[] = [];
  if (gpus.includes("NVIDIA")) {
    lines.push(
      container
        ? "NVIDIA in a container: the container needs the capability `graphics`, not only `compute`:"
        : "NVIDIA: install NVIDIA's own driver with its Vulkan part, then log in again:",
    );
    if (container) {
      lines.push(
        "  docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all …",
        "  and inside it, on Debian or Ubuntu: apt-get install -y libvulkan1 libxext6 libegl1",
      );
    } else if (is("ubuntu")) lines.push("  sudo ubuntu-drivers install");
    else if (is("debian")) lines.push("  sudo apt-get install -y nvidia-driver nvidia-vulkan-icd");
    else if (is("fedora", "rhel")) lines.push("  sudo dnf install akmod-nvidia (from RPM Fusion)");
    else lines.push("  the package of your distribution, or https://www.nvidia.com/drivers");
  }
  if (container && gpus.some((gpu) => gpu !== "NVIDIA")) {
    lines.push("AMD or Intel in a container: hand it the device: docker run --device /dev/dri …");
  }
  lines.push(
    gpus.some((gpu) => gpu !== "NVIDIA")
      ? "AMD and Intel: install Mesa's Vulkan drivers, and be in the group `render`:"
      : "Without a GPU: install Mesa's software Vulkan driver:",
    `  ${mesaCommand(is)}`,
  );
  return lines;
}

function mesaCommand(is: (...names: string[]) => boolean): string {
  if (is("debian", "ubuntu")) {
    return "sudo apt-get update && sudo apt-get install -y mesa-vulkan-drivers libvulkan1";
  }
  if (is("fedora", "rhel")) return "sudo dnf install mesa-vulkan-drivers vulkan-loader";
  if (is("arch")) {
    return "sudo pacman -S vulkan-icd-loader vulkan-swrast vulkan-radeon vulkan-intel";
  }
  if (is("suse", "opensuse")) return "sudo zypper install libvulkan1 libvulkan_lvp";
  return "Mesa's Vulkan drivers and the Vulkan loader, from your distribution";
}
