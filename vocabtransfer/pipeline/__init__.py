"""The main job: from a source model and a language name to a checkpoint, its report, its card and its proof."""
