"""The dashboards of packing and of sweeps."""

from __future__ import annotations

from infra.monitoring.panel import DATASET, SWEEP, Dashboard, Panel, rate

PACKING = Dashboard(
    "packing",
    "Shardline: packing",
    "dataset",
    "shardline_pack_phase",
    (
        Panel(
            "Phase",
            {"{{dataset}}: {{phase}}": f"max by (dataset, phase) (shardline_pack_phase{DATASET}) == 1"},
            kind="state-timeline",
            width=12,
        ),
        Panel(
            "Done",
            {
                "{{dataset}} {{stage}}": f"max by (dataset, stage) (shardline_pack_pictures_total{DATASET}) "
                f"/ max by (dataset, stage) (shardline_pack_total_pictures{DATASET})"
            },
            "percentunit",
            width=12,
        ),
        Panel(
            "Pictures a second",
            {"{{dataset}} {{stage}}": rate(f"shardline_pack_pictures_total{DATASET}", "dataset, stage")},
        ),
        Panel(
            "Bytes a second",
            {"{{dataset}} {{stage}}": rate(f"shardline_pack_bytes_total{DATASET}", "dataset, stage")},
            "Bps",
        ),
        Panel(
            "Since the last progress",
            {"{{dataset}}": f"time() - max by (dataset) (shardline_pack_progress_timestamp_seconds{DATASET})"},
            "s",
        ),
        Panel(
            "Pictures packed",
            {"{{dataset}} {{split}}": f"max by (dataset, split) (shardline_pack_packed_pictures{DATASET})"},
            kind="stat",
        ),
        Panel(
            "Left out",
            {"{{dataset}} unreadable": f"max by (dataset) (shardline_pack_quarantined_pictures{DATASET})"},
            kind="stat",
        ),
        Panel(
            "Found by the audit",
            {
                "{{dataset}} copies": f"max by (dataset) (shardline_pack_duplicate_pictures{DATASET})",
                "{{dataset}} leaks": f"max by (dataset) (shardline_pack_leaks{DATASET})",
            },
            kind="stat",
        ),
    ),
)

SWEEPS = Dashboard(
    "sweeps",
    "Shardline: sweeps",
    "sweep",
    "shardline_sweep_phase",
    (
        Panel(
            "Phase",
            {"{{sweep}}: {{phase}}": f"max by (sweep, phase) (shardline_sweep_phase{SWEEP}) == 1"},
            kind="state-timeline",
            width=12,
        ),
        Panel(
            "Trials",
            {
                "{{sweep}} {{state}}": f"max by (sweep, state) (shardline_sweep_trials_total{SWEEP})",
                "{{sweep}} in all": f"max by (sweep) (shardline_sweep_total_trials{SWEEP})",
            },
            width=12,
        ),
        Panel(
            "Epochs",
            {
                "{{sweep}} done": f"max by (sweep) (shardline_sweep_epochs_total{SWEEP})",
                "{{sweep}} at most": f"max by (sweep) (shardline_sweep_total_epochs{SWEEP})",
            },
        ),
        Panel("Best score", {"{{sweep}} {{metric}}": f"max by (sweep, metric) (shardline_sweep_best_score{SWEEP})"}),
        Panel(
            "Since the last epoch",
            {"{{sweep}}": f"time() - max by (sweep) (shardline_sweep_epoch_timestamp_seconds{SWEEP})"},
            "s",
        ),
        Panel("Trials started again", {"{{sweep}}": f"max by (sweep) (shardline_sweep_retries_total{SWEEP})"}),
    ),
)
