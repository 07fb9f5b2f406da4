"""The dashboard of endpoints."""

from __future__ import annotations

from infra.monitoring.panel import ASKED, ENDPOINT, Dashboard, Panel, of, quantile, rate, share

SERVING = Dashboard(
    "serving",
    "Shardline: endpoints",
    "endpoint",
    "shardline_max_waiting",
    (
        Panel(
            "Requests a second",
            {"{{endpoint}} {{outcome}}": rate(f"shardline_requests_total{ASKED}", "endpoint, outcome")},
            "reqps",
            "By the kind of problem; `ok` if there is none",
        ),
        Panel(
            "Errors",
            {
                "{{endpoint}} {{outcome}}": "sum by (endpoint, outcome) (rate(shardline_requests_total"
                + of("endpoint", 'page=~".*(predict|infer)", outcome!="ok"')
                + "[$__rate_interval])) / on (endpoint) group_left "
                + rate(f"shardline_requests_total{ASKED}", "endpoint")
            },
            "percentunit",
        ),
        Panel(
            "Latency",
            {
                "{{endpoint}} median": quantile(0.5, f"shardline_request_ms_bucket{ASKED}", "endpoint"),
                "{{endpoint}} 99 %": quantile(0.99, f"shardline_request_ms_bucket{ASKED}", "endpoint"),
            },
            "ms",
            "In the replica; Ray Serve's own metrics have the way there",
        ),
        Panel(
            "Pictures a second",
            {"{{endpoint}} {{bundle}}": rate(f"shardline_pictures_total{ENDPOINT}", "endpoint, bundle")},
        ),
        Panel(
            "Time of a picture by stage",
            {
                "{{endpoint}} {{stage}}": share(
                    "shardline_stage_ms_sum" + ENDPOINT, "shardline_stage_ms_count" + ENDPOINT, "endpoint, stage"
                )
            },
            "ms",
            "queue: waiting for the model and for pictures to share its batch",
        ),
        Panel(
            "Batch size",
            {
                "{{endpoint}}": share(
                    f"shardline_batch_size_sum{ENDPOINT}", f"shardline_batch_size_count{ENDPOINT}", "endpoint"
                )
            },
            meaning="Mean number of pictures in a forward pass",
        ),
        Panel(
            "Queue",
            {
                "{{endpoint}} fullest replica": f"max by (endpoint) (shardline_waiting{ENDPOINT})",
                "{{endpoint}} max_waiting": f"max by (endpoint) (shardline_max_waiting{ENDPOINT})",
            },
        ),
        Panel(
            "Foreign pictures",
            {
                "{{endpoint}}": share(
                    f"shardline_foreign_pictures_total{ENDPOINT}", f"shardline_pictures_total{ENDPOINT}", "endpoint"
                ),
                "{{endpoint}} expected": f"max by (endpoint) (shardline_expected_foreign_share{ENDPOINT})",
            },
            "percentunit",
            "Share of pictures whose ood_score is above the bundle's threshold",
        ),
        Panel(
            "Abstentions",
            {
                "{{endpoint}}": share(
                    f"shardline_abstentions_total{ENDPOINT}", f"shardline_pictures_total{ENDPOINT}", "endpoint"
                )
            },
            "percentunit",
        ),
        Panel(
            "Labels given",
            {
                "{{label}}": f"sum by (endpoint, label) (rate(shardline_labels_total{ENDPOINT}[1h]))"
                f" / on (endpoint) group_left sum by (endpoint) (rate(shardline_pictures_total{ENDPOINT}[1h]))"
            },
            "percentunit",
            "Share of the answers of an hour",
        ),
        Panel(
            "Labels expected",
            {"{{label}}": f"max by (endpoint, label) (shardline_expected_share{ENDPOINT})"},
            "percentunit",
            "Share of validation pictures to which the bundle's decision gives each label",
        ),
        Panel(
            "Drift",
            {
                "{{endpoint}}": "sum by (endpoint) (abs("
                f"sum by (endpoint, label) (rate(shardline_labels_total{ENDPOINT}[1h]))"
                f" / on (endpoint) group_left sum by (endpoint) (rate(shardline_pictures_total{ENDPOINT}[1h]))"
                f" - on (endpoint, label) max by (endpoint, label) (shardline_expected_share{ENDPOINT}))) / 2"
            },
            "percentunit",
            "Half of the summed differences between the two panels before; the alert is at 20 %",
        ),
        Panel(
            "Pictures refused",
            {"{{endpoint}} {{reason}}": rate(f"shardline_refused_pictures_total{ENDPOINT}", "endpoint, reason")},
        ),
        Panel(
            "Bundle",
            {"{{endpoint}} {{bundle}}": f"count by (endpoint, bundle) (shardline_active_bundle{ENDPOINT})"},
            meaning="Replicas by the bundle that they answer with",
        ),
        Panel(
            "Bundle on trial",
            {
                "{{endpoint}} compared": rate(f"shardline_compared_total{ENDPOINT}", "endpoint"),
                "{{endpoint}} with the same labels": rate(f"shardline_agreed_total{ENDPOINT}", "endpoint"),
            },
            meaning="Pictures a second with --shadow",
        ),
    ),
)
