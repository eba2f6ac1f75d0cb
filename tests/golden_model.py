"""The dimensions of tests/golden/checkpoint, from its config.json and the shapes of its transition tensors."""

from plume_export.spec import DecoderSpec, ModelSpec, PreprocessSpec, RolloutSpec, TransitionSpec, VisionSpec

GOLDEN_MODEL = ModelSpec(
    vision=VisionSpec(
        depth=2, width=64, heads=2, mlp_width=256, patch_size=14, temporal_patch_size=2, merge_size=2, channels=3
    ),
    decoder=DecoderSpec(
        layers=3,
        hidden=128,
        query_heads=4,
        kv_heads=2,
        head_dim=32,
        mlp_width=256,
        vocab=2000,
        norm_epsilon=1e-6,
        rope_theta=1_000_000.0,
        mrope_sections=(4, 6, 6),
        max_positions=32768,
    ),
    transition=TransitionSpec(experts=4, expert_width=256, step_table_rows=32, top_k=2),
    rollout=RolloutSpec(),
    preprocess=PreprocessSpec(),
)
