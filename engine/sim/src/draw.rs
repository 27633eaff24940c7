//! How the options of a run are drawn from its seed, and which of them the caller may change.

use std::time::Duration;

use pontoon_types::limits::{CORE_WINDOW_BYTES_MAX, FETCH_BYTES_MAX, WINDOW_BYTES_MAX};

use crate::options::{
    ClientOptions, CoreOptions, DRIFT_MARGIN_PPM, DiskOptions, Handicap, NetworkOptions, Options, Overrides,
    ProcessOptions,
};
use crate::orders::OrderOptions;
use crate::parts::Part;
use crate::quorum_loss::LossOptions;
use crate::random::Random;
use crate::repeats::RepeatOptions;

impl Options {
    /// Draws the options of `seed` and applies what the caller wants otherwise.
    pub fn draw(seed: u64, overrides: &Overrides) -> Options {
        let mut random = Random::new(seed);
        let nodes = *random.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 5, 4, 2, 1]);
        let core = draw_core(&mut random);
        let cores = *random.pick(&[1, 1, 1, 2]);
        let groups = draw_crowd(seed).unwrap_or(*random.pick(&[1, 1, 2, 3, 4, 6]));
        // Counted in election timeouts, so that slow and fast clusters see as many elections.
        let duration = core.election_timeout * random.between(12, 36) as u32;
        let mut options = Options {
            seed,
            nodes,
            founders: nodes,
            cores,
            groups,
            duration,
            network: draw_network(&mut random, &core),
            disk: draw_disk(&mut random, &core),
            process: draw_process(&mut random, &core),
            client: draw_client(&mut random, &core),
            core,
            handicap: *random.pick(&HANDICAPS),
            orders: OrderOptions::default(),
            repeats: RepeatOptions::default(),
            loss: LossOptions::default(),
            outcomes_only: overrides.outcomes_only,
            leases: overrides.leases || overrides.long_leases,
            #[cfg(feature = "mutations")]
            hints_lie: overrides.hints_lie,
            #[cfg(feature = "mutations")]
            unguarded: overrides.unguarded,
            #[cfg(feature = "mutations")]
            mutation: overrides.mutation,
            #[cfg(feature = "mutations")]
            core_mutation: overrides.core_mutation,
            #[cfg(feature = "mutations")]
            disk_mutation: overrides.disk_mutation,
        };
        draw_log_faults(&mut random, &mut options);
        draw_rare_faults(&mut random, &mut options);
        draw_memory(&mut options);
        draw_builds(&mut options);
        draw_clocks(&mut options);
        options.leases |= Random::new(seed ^ 0x006c_6561_7365).chance(LEASES_PPM);
        if overrides.long_leases {
            options.core.lease_length = options.core.support_timeout * LONG_LEASE_SUPPORTS;
        }
        options.nodes = overrides.nodes.unwrap_or(options.nodes);
        options.cores = overrides.cores.unwrap_or(options.cores);
        options.groups = overrides.groups.unwrap_or(options.groups);
        options.client.clients = overrides.clients.unwrap_or(options.client.clients);
        options.duration = overrides.duration.unwrap_or(options.duration);
        options.handicap = overrides.handicap.unwrap_or(options.handicap);
        options.disk.segment_bytes = options.disk.segment_bytes.max(options.largest_write_bytes().next_power_of_two());
        options.disk.group_bytes_max = options.disk.group_bytes_max.max(options.write_of_each_group_bytes());
        if options.nodes < 3 {
            options.handicap = Handicap::None;
        }
        if overrides.old_images {
            // Damage that an image holds could not be told from damage that was done to it.
            (options.disk.old_image_ppm, options.disk.damage_ppm) = (600_000, 0);
        } else if options.disk.damage_ppm == 0 {
            options.disk.old_image_ppm = *Random::new(seed ^ 0x696d_6167_6573).pick(&[0, 0, 600_000]);
        }
        #[cfg(feature = "mutations")]
        if options.unguarded {
            options.switch_off(Part::OldImages);
        }
        options.process.drift_max_ppm = overrides.drift_ppm.unwrap_or(options.process.drift_max_ppm);
        let is_asked_otherwise = overrides.old_images || overrides.handicap.is_some();
        if overrides.quorum_loss || !is_asked_otherwise {
            options.loss = LossOptions::draw(&options, overrides.quorum_loss);
        }
        if overrides.changes || !options.loss.after.is_zero() {
            for part in [Part::Handicap, Part::Damage, Part::Rot, Part::OldImages] {
                options.switch_off(part);
            }
        }
        options.orders = OrderOptions::draw(&mut random, &options);
        if overrides.changes && options.orders.change_interval.is_zero() {
            options.orders.change_interval = options.core.election_timeout;
        }
        draw_store(&mut random, &mut options);
        if !options.loss.after.is_zero() {
            options.switch_off(Part::Rot);
        }
        let has_spares = !options.orders.change_interval.is_zero() && random.chance(500_000);
        options.founders = if has_spares { options.nodes.min(3) } else { options.nodes };
        options.repeats = RepeatOptions::draw(&options);
        overrides.without.iter().for_each(|part| options.switch_off(*part));
        if overrides.faults == Some(false) {
            options.handicap = Handicap::None;
            options.heal();
        }
        options
    }
}

/// Few groups meet more in the same time; but what many of them share shows only among many.
fn draw_crowd(seed: u64) -> Option<u32> {
    let mut random = Random::new(seed ^ 0x0063_726f_7764);
    random.chance(CROWD_PPM).then(|| *random.pick(&[500, 1_000, 2_000]))
}

/// One of 500 runs has a crowd: it takes as long as some twenty others.
const CROWD_PPM: u32 = 2_000;

const HANDICAPS: [Handicap; 6] = [
    Handicap::None,
    Handicap::None,
    Handicap::MinorityDown,
    Handicap::OneDeaf,
    Handicap::OneMute,
    Handicap::OnePairApart,
];

fn draw_core(random: &mut Random) -> CoreOptions {
    // A third runs with the times of production, the rest faster: the same races in less virtual time.
    let election_ms = *random.pick(&[1_000, 300, 300, 150]);
    let election_timeout = Duration::from_millis(election_ms);
    CoreOptions {
        election_timeout,
        beacon_interval: election_timeout / 10,
        support_timeout: election_timeout,
        lease_length: election_timeout * 9 / 10,
        broken_link_grace: election_timeout * 3 / 10,
        request_timeout: election_timeout * random.between(2, 5) as u32,
        retry_interval: election_timeout / 4,
        commit_delay: Duration::from_millis(*random.pick(&[0, 1, 20])),
        append_entries_max: *random.pick(&[1, 2, 16, 1024]),
        append_bytes_max: *random.pick(&[256, 4096, 65536]),
        inflight_messages_max: *random.pick(&[1, 2, 8, 64]),
        window_bytes_max: WINDOW_BYTES_MAX,
        core_window_bytes_max: CORE_WINDOW_BYTES_MAX,
        fetch_bytes_max: FETCH_BYTES_MAX,
        checkpoint_log_bytes: usize::MAX,
        chunk_bytes: 4096,
        restored_entries: usize::MAX,
    }
}

/// Checkpoints happen in every run. So small a part of a log is kept that one who was away for a moment needs a snapshot.
fn draw_store(random: &mut Random, options: &mut Options) {
    options.core.checkpoint_log_bytes = *random.pick(&[300, 1_000, 4_000, 16_000]);
    // A state in tiny chunks would take longer than the liveness phase waits: it holds what is remembered of clients too.
    let chunk_bytes = *random.pick(&[200, 1_000, 4_096]);
    options.core.chunk_bytes = chunk_bytes.max(options.client.filling_max as usize);
    options.disk.store_mean = Duration::from_micros(*random.pick(&[50, 500, 5_000, 30_000]));
    options.disk.store_error_ppm = *random.pick(&[0, 0, 1_000, 20_000]);
    // Where members change, a group may come to depend on the one replica that has lost its state.
    let mut random = Random::new(options.seed ^ 0x7368_656c_7665);
    if options.orders.change_interval.is_zero() {
        options.disk.checkpoint_rot_ppm = *random.pick(&[0, 0, 200_000]);
    }
    options.disk.misread_ppm = *random.pick(&[0, 0, 50_000]);
}

/// How many runs have leases without being asked to, parts per million. The others show law 6 more sharply.
const LEASES_PPM: u32 = 250_000;

/// How many times the support of a silent peer a lease lasts, where long ones were asked for.
const LONG_LEASE_SUPPORTS: u32 = 4;

fn draw_network(random: &mut Random, core: &CoreOptions) -> NetworkOptions {
    let election = core.election_timeout;
    let delay_min = Duration::from_micros(*random.pick(&[20, 100, 1_000]));
    NetworkOptions {
        delay_min,
        delay_mean: *random.pick(&[delay_min, delay_min * 5, election / 60, election / 12]),
        loss_ppm: *random.pick(&[0, 0, 1_000, 20_000, 100_000, 250_000]),
        duplicate_ppm: *random.pick(&[0, 0, 10_000, 100_000, 400_000]),
        corrupt_ppm: *random.pick(&[0, 0, 0, 1_000, 10_000]),
        reorder: random.chance(500_000),
        partition_interval: election * *random.pick(&[0, 0, 3, 5, 10]),
        partition_length: election * *random.pick(&[1, 3, 6]),
        partition_breaks_links: random.chance(500_000),
        break_interval: election * *random.pick(&[0, 0, 1, 4]),
        break_loses_frames: random.chance(500_000),
        clog_interval: election * *random.pick(&[0, 0, 1, 4]),
        clog_length: election * *random.pick(&[1, 2, 3]),
        roll_interval: Duration::ZERO,
        roll_length: Duration::ZERO,
        lag_interval: Duration::ZERO,
        lag_length: Duration::ZERO,
        lag_max: Duration::ZERO,
        narrow_interval: Duration::ZERO,
        narrow_length: Duration::ZERO,
        narrow_bytes_per_second: 0,
        reset_interval: Duration::ZERO,
        reset_length: Duration::ZERO,
        stranger_ppm: 0,
    }
}

/// Faults that most runs do without: each of them fills a run.
fn draw_rare_faults(random: &mut Random, options: &mut Options) {
    let election = options.core.election_timeout;
    options.network = NetworkOptions {
        roll_interval: election * *random.pick(&[0, 0, 0, 8]),
        roll_length: election * *random.pick(&[1, 2]) * 3 / 4,
        lag_interval: election * *random.pick(&[0, 0, 0, 6]),
        lag_length: election * *random.pick(&[1, 4]),
        lag_max: election * *random.pick(&[1, 3]),
        narrow_interval: election * *random.pick(&[0, 0, 0, 3]),
        narrow_length: election * *random.pick(&[2, 6]),
        narrow_bytes_per_second: *random.pick(&[2_000, 20_000, 200_000]),
        reset_interval: election * *random.pick(&[0, 0, 0, 6]),
        reset_length: election * *random.pick(&[1, 3]),
        stranger_ppm: *random.pick(&[0, 0, 20_000]),
        ..options.network.clone()
    };
    options.process.crash_after_reply_ppm = *random.pick(&[0, 0, 0, 30_000, 150_000]);
    options.process.storm_interval = election * *random.pick(&[0, 0, 0, 6]);
    options.process.freeze_interval = election * *random.pick(&[0, 0, 0, 4]);
    options.disk.slow_interval = election * *random.pick(&[0, 0, 0, 6]);
    options.disk.slow_length = election * *random.pick(&[1, 4]);
    options.client.loyal_readers = random.chance(500_000);
    options.client.foreign_ppm = *random.pick(&[0, 0, 40_000]);
}

fn draw_disk(random: &mut Random, core: &CoreOptions) -> DiskOptions {
    DiskOptions {
        store_mean: Duration::from_micros(500),
        store_error_ppm: 0,
        checkpoint_rot_ppm: 0,
        misread_ppm: 0,
        sync_mean: *random.pick(&[
            Duration::from_micros(50),
            Duration::from_millis(1),
            core.election_timeout / 50,
            core.election_timeout / 10,
        ]),
        slow_ppm: *random.pick(&[0, 0, 10_000, 50_000]),
        slow_max: core.election_timeout * *random.pick(&[1, 3]),
        slow_interval: Duration::ZERO,
        slow_length: Duration::ZERO,
        full_interval: core.election_timeout * *random.pick(&[0, 0, 0, 4]),
        fetch_mean: Duration::from_micros(50),
        cold_ppm: 0,
        segment_bytes: 0,
        segments_max: None,
        ready_segments: 1,
        checkpoint_segments: 1,
        group_bytes_max: 0,
        no_room_interval: Duration::ZERO,
        no_room_length: Duration::ZERO,
        sync_error_ppm: 0,
        write_error_ppm: 0,
        hidden_error_ppm: 0,
        start_power_ppm: 0,
        damage_ppm: 0,
        payload_ppm: 0,
        scrub_interval: Duration::ZERO,
        old_image_ppm: 0,
    }
}

/// The sizes of the log and what happens to its disk.
fn draw_log_faults(random: &mut Random, options: &mut Options) {
    let election = options.core.election_timeout;
    options.disk = DiskOptions {
        segment_bytes: *random.pick(&[64 << 10, 64 << 10, 128 << 10, 256 << 10]),
        segments_max: *random.pick(&[None, None, None, None, None, Some(24), Some(10)]),
        ready_segments: *random.pick(&[1, 2]),
        checkpoint_segments: *random.pick(&[1, 2, 4]),
        group_bytes_max: *random.pick(&[4 << 10, 16 << 10, 1 << 20]),
        no_room_interval: election * *random.pick(&[0, 0, 0, 3]),
        no_room_length: election * *random.pick(&[1, 6]),
        sync_error_ppm: *random.pick(&[0, 0, 500, 3_000]),
        write_error_ppm: *random.pick(&[0, 0, 500, 3_000]),
        hidden_error_ppm: *random.pick(&[0, 0, 0, 2_000, 10_000]),
        start_power_ppm: *random.pick(&[0, 0, 200_000]),
        damage_ppm: *random.pick(&[0, 0, 100_000, 500_000]),
        payload_ppm: *random.pick(&[0, 0, 100_000, 500_000]),
        scrub_interval: election * *random.pick(&[0, 0, 1, 4]),
        ..options.disk.clone()
    };
    // In some runs the disks are good: a core that is restarted all the time never comes to the deeper races.
    if random.chance(300_000) {
        options.heal_disks();
    }
    options.process.kill_ppm = *random.pick(&[0, 0, 200_000, 500_000, 1_000_000]);
    options.process.stop_ppm = *random.pick(&[0, 0, 200_000, 600_000]);
}

/// How much of the logs is in memory, and what reading the rest is like. From a stream of its own.
fn draw_memory(options: &mut Options) {
    let random = &mut Random::new(options.seed ^ 0x6d65_6d6f_7279);
    let core = &mut options.core;
    core.window_bytes_max = *random.pick(&[1, 1, 500, 4_000, WINDOW_BYTES_MAX]);
    core.core_window_bytes_max = *random.pick(&[1, 2_000, CORE_WINDOW_BYTES_MAX, CORE_WINDOW_BYTES_MAX]);
    core.fetch_bytes_max = *random.pick(&[4_000, 4_000, 16_000, FETCH_BYTES_MAX]);
    core.restored_entries = *random.pick(&[0, 0, 5, usize::MAX]);
    // A machine that starts reads its whole log in such pieces, and must be done when the cluster has to serve.
    let slowest = if core.fetch_bytes_max <= 4_000 { Duration::from_millis(1) } else { core.election_timeout / 20 };
    options.disk.fetch_mean = *random.pick(&[Duration::from_micros(50), Duration::from_micros(500), slowest]);
    options.disk.cold_ppm = *random.pick(&[0, 10_000, 200_000]);
}

/// Which builds nodes start with. From a stream of its own.
fn draw_builds(options: &mut Options) {
    let random = &mut Random::new(options.seed ^ 0x0062_7569_6c64);
    options.process.old_build_ppm = *random.pick(&[0, 0, 0, 300_000]);
}

/// What clocks do beside running wrong. From a stream of its own.
fn draw_clocks(options: &mut Options) {
    let random = &mut Random::new(options.seed ^ 0x6a75_6d70_6564);
    options.process.clock_jump_interval = options.core.election_timeout * *random.pick(&[0, 0, 4]);
    options.process.late_events_ppm = *random.pick(&[0, 500_000]);
    let election = options.core.election_timeout;
    options.process.starve_interval = election * *random.pick(&[0, 0, 4]);
    options.process.starve_length = election * *random.pick(&[2, 8]);
    options.process.starve_max = election * *random.pick(&[1, 2, 4]) / 2;
}

fn draw_process(random: &mut Random, core: &CoreOptions) -> ProcessOptions {
    let election = core.election_timeout;
    ProcessOptions {
        crash_interval: election * *random.pick(&[0, 1, 2, 4, 8]),
        crash_in_turn_ppm: *random.pick(&[0, 0, 200, 2_000]),
        kill_ppm: 0,
        stop_ppm: 0,
        restart_delay: *random.pick(&[election / 20, election / 2, election * 3]),
        crash_all: random.chance(300_000),
        crash_after_reply_ppm: 0,
        storm_interval: Duration::ZERO,
        quiet_restart: true,
        old_build_ppm: 0,
        freeze_interval: Duration::ZERO,
        clock_jump_interval: Duration::ZERO,
        late_events_ppm: 0,
        starve_interval: Duration::ZERO,
        starve_length: Duration::ZERO,
        starve_max: Duration::ZERO,
        pause_interval: election * *random.pick(&[0, 0, 2, 6]),
        pause_length: election * *random.pick(&[1, 3]),
        drift_max_ppm: *random.pick(&[0, 0, 200, DRIFT_MARGIN_PPM]),
        turn_delay_max: *random.pick(&[
            Duration::from_micros(10),
            Duration::from_micros(200),
            Duration::from_millis(2),
            Duration::from_millis(8),
        ]),
    }
}

fn draw_client(random: &mut Random, core: &CoreOptions) -> ClientOptions {
    let clients = *random.pick(&[1, 2, 3, 4, 5]);
    // Large values make groups of records that a crash can tear in many places; few of them fit a small segment.
    let filling_max = *random.pick(&[0, 300, 1_500, 1_500]);
    ClientOptions {
        clients,
        // Few operations at once: each open one doubles the work of the linearizability check.
        lanes: (*random.pick(&[1, 1, 2, 3])).min(8 / clients),
        keys: *random.pick(&[1, 2, 3]),
        think_mean: *random.pick(&[core.election_timeout / 40, core.election_timeout / 15, core.election_timeout / 5]),
        timeout: core.election_timeout * *random.pick(&[1, 2, 3]),
        operations_max: if filling_max > 300 { 300 } else { 1_200 },
        mix: *random.pick(&[
            [40, 40, 5, 10, 3, 2],
            [20, 60, 5, 5, 5, 5],
            [60, 20, 0, 20, 0, 0],
            [25, 25, 15, 25, 5, 5],
        ]),
        filling_max,
        loss_ppm: *random.pick(&[0, 0, 5_000, 20_000]),
        stray_ppm: *random.pick(&[10_000, 100_000, 500_000]),
        stale_ppm: *random.pick(&[0, 20_000]),
        foreign_ppm: 0,
        loyal_readers: false,
        delay_mean: *random.pick(&[Duration::from_micros(50), Duration::from_millis(1), Duration::from_millis(10)]),
    }
}
