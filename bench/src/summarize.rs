//! Results of several runs side by side: for each shape of the load and each target the median with minimum and
//! maximum, and the ratio of the medians to a baseline.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Table, presets};

use crate::args::SummarizeArgs;
use crate::error::{BenchError, USAGE};
use crate::report::{Report, figure, print_text};
use crate::spread::Spread;

/// What must be equal for two results to be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    clients: u32,
    value_size: u32,
    read_percent: u32,
}

/// A figure that is compared.
struct Figure {
    name: &'static str,
    of: fn(&Report) -> Option<f64>,
}

const FIGURES: [Figure; 7] = [
    Figure { name: "writes/s", of: |report| (report.writes > 0).then_some(report.writes_per_s) },
    Figure { name: "write p50 us", of: |report| report.write_p50_us },
    Figure { name: "write p99 us", of: |report| report.write_p99_us },
    Figure { name: "reads/s", of: |report| (report.reads > 0).then_some(report.reads_per_s) },
    Figure { name: "read p99 us", of: |report| report.read_p99_us },
    Figure { name: "disk B/write", of: |report| report.disk_bytes_per_write },
    Figure { name: "client cores", of: |report| Some(report.client_cpu_cores) },
];

/// Reads the files and prints the comparison.
pub fn run(args: &SummarizeArgs) -> Result<(), BenchError> {
    let mut reports = Vec::new();
    for file in &args.files {
        let fail = |why: String| BenchError::new(USAGE, format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let report = serde_json::from_str(line)
                .map_err(|error| fail(format!("line {number} is not a result of this program: {error}")))?;
            reports.push(report);
        }
    }
    if reports.is_empty() {
        return Err(BenchError::new(USAGE, "the files hold no result"));
    }
    print_text(&summary(&reports, &args.baseline))
}

fn summary(reports: &[Report], baseline: &str) -> String {
    let mut shapes: BTreeMap<Shape, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        let setup = &report.setup;
        let shape = Shape { clients: setup.clients, value_size: setup.value_size, read_percent: setup.read_percent };
        shapes.entry(shape).or_default().push(report);
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["clients", "value B", "reads %", "figure", "target", "median", "min", "max", "ratio", "runs"]);
    for (shape, reports) in &shapes {
        for Figure { name, of } in &FIGURES {
            let base = spread(reports, baseline, of);
            for target in targets(reports, baseline) {
                let Some(spread) = spread(reports, &target, of) else { continue };
                let ratio = base.as_ref().filter(|base| base.median > 0.0).map(|base| spread.median / base.median);
                table.add_row([
                    shape.clients.to_string(),
                    shape.value_size.to_string(),
                    shape.read_percent.to_string(),
                    name.to_string(),
                    target.clone(),
                    figure(Some(spread.median)),
                    figure(Some(spread.min)),
                    figure(Some(spread.max)),
                    if target == baseline { String::new() } else { figure(ratio) },
                    spread.runs.to_string(),
                ]);
            }
        }
    }
    table.to_string()
}

/// All targets, the baseline first.
fn targets(reports: &[&Report], baseline: &str) -> Vec<String> {
    let all: BTreeSet<&str> = reports.iter().map(|report| report.setup.target.as_str()).collect();
    let others = all.iter().filter(|target| **target != baseline);
    all.iter().filter(|target| **target == baseline).chain(others).map(|target| target.to_string()).collect()
}

fn spread(reports: &[&Report], target: &str, of: &fn(&Report) -> Option<f64>) -> Option<Spread> {
    Spread::of(reports.iter().filter(|report| report.setup.target == target).filter_map(|report| of(report)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn medians_and_ratios_are_of_equal_shapes_only() {
        let reports = [
            report("etcd", 256, 10.0),
            report("etcd", 256, 30.0),
            report("etcd", 256, 20.0),
            report("pontoond", 256, 60.0),
            report("pontoond", 256, 100.0),
            report("pontoond", 1, 7.0),
        ];
        let text = summary(&reports, "etcd");
        let row = |clients: &str, target: &str| -> Vec<String> {
            let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
            let mut rows = text.lines().map(cells).filter(|row| row.len() > 9);
            rows.find(|row| row[1] == clients && row[4] == "writes/s" && row[5] == target).unwrap()[6..11].to_vec()
        };
        assert_eq!(row("256", "etcd"), ["20.0", "10.0", "30.0", "", "3"]);
        assert_eq!(row("256", "pontoond"), ["80.0", "60.0", "100", "4.00", "2"]);
        assert_eq!(row("1", "pontoond"), ["7.00", "7.00", "7.00", "-", "1"]);
    }
}
