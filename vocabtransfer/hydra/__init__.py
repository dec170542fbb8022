"""Several vocabularies for one body: heads on disk, and the model that uses them."""

from vocabtransfer.hydra.add import add_head, add_head_from_checkpoint, attach_adapter
from vocabtransfer.hydra.concatenate import export_concatenated
from vocabtransfer.hydra.export import export_head
from vocabtransfer.hydra.fingerprint import backbone_fingerprint
from vocabtransfer.hydra.folder import HydraFolder, create_hydra, is_hydra, open_hydra
from vocabtransfer.hydra.head_config import HeadConfig
from vocabtransfer.hydra.manage import HeadInfo, describe_head, list_heads, remove_head, rename_head, verify_head
from vocabtransfer.hydra.model import HydraForCausalLM
from vocabtransfer.hydra.stored import StoredHead

__all__ = [
    "HeadConfig",
    "HeadInfo",
    "HydraFolder",
    "HydraForCausalLM",
    "StoredHead",
    "add_head",
    "add_head_from_checkpoint",
    "attach_adapter",
    "backbone_fingerprint",
    "create_hydra",
    "describe_head",
    "export_concatenated",
    "export_head",
    "is_hydra",
    "list_heads",
    "open_hydra",
    "remove_head",
    "rename_head",
    "verify_head",
]
