//! Which processor each core keeps to.
//!
//! A disk with one queue reports the end of every write and flush to one processor, and the kernel's part of a sync goes on
//! there. A core that lives elsewhere pays for two wake-ups between processors with each sync; `docs/decisions/0007-processors.md`
//! has the figures. So cores are laid round the processors that the process may use, beginning with those on which the
//! interrupts of the disk arrive. A disk with a queue for each processor has no such place, and the order is that of the numbers.
//!
//! Where the interrupts arrive is read once, at the start of a node, from the kernel's tables: `msi_irqs` of the device under
//! the file system, the counts of `/proc/interrupts`, and the processor to which the busiest of them goes now. An administrator
//! or `irqbalance` may move them later; nothing but the speed of a sync depends on it.
//!
//! Left out: disks whose interrupts the kernel does not list (those on a virtio-mmio bus), and file systems without one device
//! of their own (overlay, btrfs, memory, network). There the order is that of the numbers too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::NodeConfig;

/// Devices that lie on each other (LVM on a RAID of partitions), above which somebody else has to be asked.
const STACKED_DEVICES_MAX: usize = 4;

/// The place in turn of the next core in this process.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The processor of each core, or none for a core that is not pinned. Without [`NodeConfig::first_cpu`] each call goes on
/// where the one before ended: cores of several nodes in one process do not meet before they must.
pub fn of_cores(config: &NodeConfig, cores: usize) -> Vec<Option<usize>> {
    if !config.pin {
        return vec![None; cores];
    }
    let (first, processors) = match config.first_cpu {
        Some(first) => (first, allowed()),
        None => (NEXT.fetch_add(cores, Ordering::Relaxed), in_order(&config.data_dir)),
    };
    let place = |core: usize| processors.get((first + core) % processors.len().max(1)).copied();
    (0..cores).map(place).collect()
}

/// The processors of all cores, for people.
pub(crate) fn named(of_cores: &[Option<usize>]) -> String {
    let name = |cpu: &Option<usize>| cpu.map_or("any".to_string(), |cpu| cpu.to_string());
    of_cores.iter().map(name).collect::<Vec<String>>().join(", ")
}

/// The processors that this process may use, in the order in which cores take them whose data lies in `dir`. Empty if the
/// kernel does not say.
fn in_order(dir: &Path) -> Vec<usize> {
    first(allowed(), &of_disk(dir))
}

/// The processors that the process may use. A thread that starts a node may itself be pinned, so the process is asked.
fn allowed() -> Vec<usize> {
    let process = rustix::process::getpid();
    let Ok(set) = rustix::thread::sched_getaffinity(Some(process)) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The same processors, those that are preferred before the others.
fn first(allowed: Vec<usize>, preferred: &[usize]) -> Vec<usize> {
    let (mut first, rest): (Vec<usize>, Vec<usize>) = allowed.into_iter().partition(|cpu| preferred.contains(cpu));
    first.extend(rest);
    first
}

/// The processors on which most interrupts of the disk under `dir` arrive. None if it has no such place.
fn of_disk(dir: &Path) -> Vec<usize> {
    let Some(device) = device_under(dir) else { return Vec::new() };
    let mut numbers = BTreeSet::new();
    gather_interrupts(&device, STACKED_DEVICES_MAX, &mut numbers);
    let counts = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let Some(busiest) = busiest(&counts, &numbers) else { return Vec::new() };
    let list = fs::read_to_string(format!("/proc/irq/{busiest}/effective_affinity_list")).unwrap_or_default();
    parse_list(&list)
}

/// The kernel's directory of the device that a file system lies on.
fn device_under(dir: &Path) -> Option<PathBuf> {
    let stat = rustix::fs::stat(dir).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

/// Adds the interrupts of a device, or of those that it is made of.
fn gather_interrupts(device: &Path, depth: usize, numbers: &mut BTreeSet<u32>) {
    let names = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
    let parts: Vec<PathBuf> = names(device.join("slaves")).filter_map(|part| part.path().canonicalize().ok()).collect();
    if parts.is_empty() {
        // A partition lies in its disk, and a disk in the controller that interrupts.
        let lists = device.ancestors().map(|ancestor| ancestor.join("msi_irqs"));
        let list = lists.into_iter().find(|list| list.is_dir());
        numbers
            .extend(list.into_iter().flat_map(names).filter_map(|irq| irq.file_name().to_str()?.parse::<u32>().ok()));
    } else if depth > 0 {
        parts.iter().for_each(|part| gather_interrupts(part, depth - 1, numbers));
    }
}

/// The one of some interrupts that makes up more than half of them, in the kernel's table of counts.
fn busiest(table: &str, numbers: &BTreeSet<u32>) -> Option<u32> {
    let of_line = |line: &str| {
        let (number, counts) = line.split_once(':')?;
        let number = number.trim().parse::<u32>().ok().filter(|number| numbers.contains(number))?;
        Some((counts.split_whitespace().map_while(|count| count.parse::<u64>().ok()).sum::<u64>(), number))
    };
    let totals: Vec<(u64, u32)> = table.lines().filter_map(of_line).collect();
    let all: u64 = totals.iter().map(|(count, _)| count).sum();
    totals.into_iter().find(|(count, _)| *count > all / 2).map(|(_, number)| number)
}

/// The numbers of a list such as `0-2,5`.
fn parse_list(list: &str) -> Vec<usize> {
    let of_part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?.min(rustix::thread::CpuSet::MAX_CPU))
    };
    list.trim().split(',').filter_map(of_part).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "           CPU0       CPU1       
 24:          1          0  IO-APIC   5-edge      ACPI:Ged
 35:          0          1  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 36:          7   23154246  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 41:   93000000          0  PCI-MSIX-0000:00:04.0   1-edge      virtio3-rx
NMI:          0          0   Non-maskable interrupts
ERR:          0
";

    #[test]
    fn a_disk_with_one_queue_has_a_busiest_interrupt_and_one_with_many_has_none() {
        let of = |table: &str, numbers: &[u32]| busiest(table, &numbers.iter().copied().collect());
        assert_eq!(of(TABLE, &[35, 36]), Some(36));
        assert_eq!(of(TABLE, &[]), None);
        assert_eq!(of(TABLE, &[99]), None);
        let spread = " 7:  50  0  nvme0q1\n 8:  0  49  nvme0q2\n 9:  1  0  nvme0q0\n";
        assert_eq!(of(spread, &[7, 8, 9]), None, "half is not more than half");
        assert_eq!(of(" 7:  0  0  nvme0q1\n", &[7]), None, "nothing was ever written");
        assert_eq!(of("no table", &[7]), None);
    }

    #[test]
    fn lists_of_processors_are_read_and_nonsense_is_none() {
        assert_eq!(parse_list("1\n"), [1]);
        assert_eq!(parse_list("0-2,5"), [0, 1, 2, 5]);
        for nonsense in ["", "\n", "x", "3-", "2-1"] {
            assert!(parse_list(nonsense).is_empty(), "{nonsense:?}");
        }
        assert_eq!(parse_list("0-99999999999").len(), rustix::thread::CpuSet::MAX_CPU + 1, "bounded");
    }

    #[test]
    fn preferred_processors_come_first_and_only_allowed_ones_come() {
        assert_eq!(first(vec![0, 1, 2, 3], &[2]), [2, 0, 1, 3]);
        assert_eq!(first(vec![0, 1], &[7]), [0, 1]);
        assert_eq!(first(vec![0, 1], &[]), [0, 1]);
    }

    #[test]
    fn a_stack_of_devices_is_followed_down_to_the_controllers() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let device = |path: &str, irqs: &[&str]| {
            fs::create_dir_all(root.join(path)).unwrap();
            let controller = root.join(path.split('/').next().unwrap());
            for irq in irqs {
                fs::create_dir_all(controller.join("msi_irqs")).unwrap();
                fs::write(controller.join("msi_irqs").join(irq), "msix").unwrap();
            }
            root.join(path)
        };
        let one = device("pci1/virtio1/block/vda/vda1", &["35", "36"]);
        let two = device("pci2/nvme/nvme0/nvme0n1", &["40"]);
        let stacked = device("virtual/block/dm-0/slaves", &[]).parent().unwrap().to_path_buf();
        let gathered = |device: &Path| {
            let mut numbers = BTreeSet::new();
            gather_interrupts(device, STACKED_DEVICES_MAX, &mut numbers);
            numbers.into_iter().collect::<Vec<u32>>()
        };
        assert_eq!(gathered(&one), [35, 36]);
        std::os::unix::fs::symlink(&one, stacked.join("slaves/vda1")).unwrap();
        std::os::unix::fs::symlink(&two, stacked.join("slaves/nvme0n1")).unwrap();
        assert_eq!(gathered(&stacked), [35, 36, 40]);
        fs::remove_file(stacked.join("slaves/vda1")).unwrap();
        std::os::unix::fs::symlink(&stacked, stacked.join("slaves/itself")).unwrap();
        assert_eq!(gathered(&stacked), [40], "a circle ends");
    }

    /// On whatever machine this runs: each allowed processor once, the same set as without a disk.
    #[test]
    fn the_order_is_one_of_the_allowed_processors() {
        let mut order = in_order(Path::new("."));
        order.sort_unstable();
        assert_eq!(order, allowed());
        assert!(of_disk(Path::new("/proc")).is_empty(), "no disk is under it");
    }

    #[test]
    fn cores_go_round_the_processors_from_the_one_that_is_named() {
        let mut config = NodeConfig::new(".");
        config.pin = false;
        assert_eq!(of_cores(&config, 2), [None, None]);
        assert_eq!(named(&[None, Some(3)]), "any, 3");
        config.pin = true;
        config.first_cpu = Some(1);
        let allowed = allowed();
        let named = |place: usize| Some(allowed[place % allowed.len()]);
        assert_eq!(of_cores(&config, 3), [named(1), named(2), named(3)]);
    }
}
