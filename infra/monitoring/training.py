"""The dashboard of training."""

from __future__ import annotations

from infra.monitoring.panel import RUN, Dashboard, Panel, quantile, rate, share

TRAINING = Dashboard(
    "training",
    "Shardline: training",
    "run",
    "shardline_train_phase",
    (
        Panel(
            "Phase",
            {"{{run}}: {{phase}}": f"max by (run, phase) (shardline_train_phase{RUN}) == 1"},
            kind="state-timeline",
            width=12,
        ),
        Panel(
            "Done",
            {
                "{{run}}": f"max by (run) (shardline_train_position{RUN}) "
                f"/ max by (run) (shardline_train_total_pictures{RUN})"
            },
            "percentunit",
            "Pictures seen of those of all epochs; a restart falls back to the last snapshot",
            width=12,
        ),
        Panel("Pictures a second", {"{{run}}": rate(f"shardline_train_pictures_total{RUN}", "run")}, "short"),
        Panel(
            "Waiting for data",
            {
                "{{run}} rank {{rank}}": share(
                    f"shardline_train_wait_seconds_total{RUN}", f"shardline_train_step_seconds_sum{RUN}", "run, rank"
                )
            },
            "percentunit",
            "Share of a step; one rank above the others has a slow disk or too few CPUs",
        ),
        Panel(
            "Step time",
            {
                "{{run}} median": quantile(0.5, f"shardline_train_step_seconds_bucket{RUN}", "run"),
                "{{run}} 99 %": quantile(0.99, f"shardline_train_step_seconds_bucket{RUN}", "run"),
            },
            "s",
        ),
        Panel(
            "Feed by stage",
            {"{{run}} {{stage}}": rate(f"shardline_train_stage_seconds_total{RUN}", "run, stage")},
            "short",
            "Threads at work in each stage: the largest one limits a feed that steps wait for",
        ),
        Panel(
            "Bytes a second",
            {
                "{{run}} read": rate(f"shardline_train_read_bytes_total{RUN}", "run"),
                "{{run}} downloaded": rate(f"shardline_train_downloaded_bytes_total{RUN}", "run"),
            },
            "Bps",
        ),
        Panel(
            "Cache hits",
            {
                "{{run}} hits": rate(f"shardline_train_cache_hits_total{RUN}", "run"),
                "{{run}} misses": rate(f"shardline_train_cache_misses_total{RUN}", "run"),
            },
            "cps",
            "Shards of a remote dataset a second; both are 0 for a local one",
        ),
        Panel(
            "Loss",
            {"{{run}}": f"max by (run) (shardline_train_loss{RUN})"},
            meaning="Mean of the epoch so far",
        ),
        Panel(
            "Score on validation",
            {
                "{{run}} {{metric}}": f"max by (run, metric) (shardline_train_score{RUN})",
                "{{run}} best": f"max by (run, metric) (shardline_train_best_score{RUN})",
            },
        ),
        Panel("Learning rate", {"{{run}}": f"max by (run) (shardline_train_learning_rate{RUN})"}, "sci"),
        Panel(
            "Age of the last snapshot",
            {"{{run}}": f"time() - max by (run) (shardline_train_snapshot_timestamp_seconds{RUN})"},
            "s",
            "What a lost worker costs besides its restart; ended runs grow older for good",
        ),
        Panel(
            "Restarts",
            {"{{run}}": f"max by (run) (shardline_train_restarts_total{RUN})"},
            meaning="Starts after one that had not ended",
        ),
        Panel("Skipped steps", {"{{run}}": rate(f"shardline_train_skipped_steps_total{RUN}", "run")}, "cps"),
        Panel("Ranks", {"{{run}}": f"max by (run) (shardline_train_ranks{RUN})"}, width=6),
        Panel("Global batch", {"{{run}}": f"max by (run) (shardline_train_batch_size{RUN})"}, width=6),
        Panel("Steps a second", {"{{run}}": rate(f"shardline_train_steps_total{RUN}", "run")}, width=6),
        Panel("Snapshots a second", {"{{run}}": rate(f"shardline_train_snapshots_total{RUN}", "run")}, width=6),
    ),
)
