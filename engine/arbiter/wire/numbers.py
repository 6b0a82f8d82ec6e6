"""The numbers that closed enums have on the wire.

Law: one table each, whole in both directions; a test holds every member to have its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arbiter.types import ConsentState, ExplainLevel, Reason, Standing
from arbiter.v1 import admin_pb2, decision_pb2, profile_pb2, trigger_pb2

if TYPE_CHECKING:
    from arbiter.serving import Cause, Phase
    from arbiter.types import TriggerStage

OUTCOMES: dict[Reason, decision_pb2.RuleOutcome.ValueType] = {
    Reason.WON: decision_pb2.RULE_OUTCOME_WON,
    Reason.LOST_SLOT: decision_pb2.RULE_OUTCOME_LOST,
    Reason.FAILED: decision_pb2.RULE_OUTCOME_FAILED,
    Reason.UNKNOWN: decision_pb2.RULE_OUTCOME_UNKNOWN,
    Reason.DISABLED: decision_pb2.RULE_OUTCOME_DISABLED,
    Reason.INACTIVE: decision_pb2.RULE_OUTCOME_INACTIVE,
    Reason.ROLLED_OUT_OF: decision_pb2.RULE_OUTCOME_ROLLOUT,
    Reason.LOST_GROUP: decision_pb2.RULE_OUTCOME_GROUP,
    Reason.DUPLICATE: decision_pb2.RULE_OUTCOME_DUPLICATE,
    Reason.RENDER_FAILED: decision_pb2.RULE_OUTCOME_RENDER_FAILED,
    Reason.OVERRIDDEN: decision_pb2.RULE_OUTCOME_OVERRIDDEN,
    Reason.NO_CONSENT: decision_pb2.RULE_OUTCOME_NO_CONSENT,
    Reason.CAPPED: decision_pb2.RULE_OUTCOME_CAPPED,
}
STANDINGS: dict[Standing, decision_pb2.ExperimentStanding.ValueType] = {
    Standing.DRAWN: decision_pb2.EXPERIMENT_STANDING_DRAWN,
    Standing.KEPT: decision_pb2.EXPERIMENT_STANDING_KEPT,
    Standing.FORCED: decision_pb2.EXPERIMENT_STANDING_FORCED,
    Standing.DISABLED: decision_pb2.EXPERIMENT_STANDING_DISABLED,
    Standing.OVERRIDDEN: decision_pb2.EXPERIMENT_STANDING_OVERRIDDEN,
    Standing.INACTIVE: decision_pb2.EXPERIMENT_STANDING_INACTIVE,
    Standing.UNIT: decision_pb2.EXPERIMENT_STANDING_UNIT,
    Standing.TARGETING: decision_pb2.EXPERIMENT_STANDING_TARGETING,
    Standing.HOLDOUT: decision_pb2.EXPERIMENT_STANDING_HOLDOUT,
    Standing.LAYER: decision_pb2.EXPERIMENT_STANDING_LAYER,
    Standing.TRAFFIC: decision_pb2.EXPERIMENT_STANDING_TRAFFIC,
}
CONSENTS: dict[ConsentState, profile_pb2.ConsentState.ValueType] = {
    ConsentState.GRANTED: profile_pb2.CONSENT_STATE_GRANTED,
    ConsentState.DENIED: profile_pb2.CONSENT_STATE_DENIED,
    ConsentState.REVOKED: profile_pb2.CONSENT_STATE_REVOKED,
}
CAUSES: dict[Cause, admin_pb2.Cause.ValueType] = {
    "files": admin_pb2.CAUSE_FILES,
    "rollback": admin_pb2.CAUSE_ROLLBACK,
    "promotion": admin_pb2.CAUSE_PROMOTION,
}
LEVELS: dict[ExplainLevel, decision_pb2.ExplainLevel.ValueType] = {
    ExplainLevel.NONE: decision_pb2.EXPLAIN_LEVEL_UNSPECIFIED,
    ExplainLevel.WINNERS: decision_pb2.EXPLAIN_LEVEL_WINNERS,
    ExplainLevel.LOSERS: decision_pb2.EXPLAIN_LEVEL_LOSERS,
    ExplainLevel.ALL: decision_pb2.EXPLAIN_LEVEL_ALL,
}
STAGES: dict[TriggerStage, trigger_pb2.TriggerStage.ValueType] = {
    "idle": trigger_pb2.TRIGGER_STAGE_IDLE,
    "in progress": trigger_pb2.TRIGGER_STAGE_IN_PROGRESS,
    "pending": trigger_pb2.TRIGGER_STAGE_PENDING,
    "spent": trigger_pb2.TRIGGER_STAGE_SPENT,
    "disabled": trigger_pb2.TRIGGER_STAGE_DISABLED,
    "inactive": trigger_pb2.TRIGGER_STAGE_INACTIVE,
}
PHASES: dict[Phase, admin_pb2.WorkerPhase.ValueType] = {
    "starting": admin_pb2.WORKER_PHASE_STARTING,
    "serving": admin_pb2.WORKER_PHASE_SERVING,
    "draining": admin_pb2.WORKER_PHASE_DRAINING,
    "down": admin_pb2.WORKER_PHASE_DOWN,
}
