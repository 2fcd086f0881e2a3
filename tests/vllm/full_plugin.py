"""The plugin of the matrix: the package ``probe`` with an entry point in every group, and modules for options that name one.

Each part writes down that it was reached. The sources use nothing that only some of the releases have.
"""

from __future__ import annotations

from . import plugins

POINTS = {
    "vllm.platform_plugins": {"probe": "probe:platform"},
    "vllm.general_plugins": {"probe": "probe:general"},
    "vllm.logits_processors": {"probe": "probe.logits:Force"},
    "vllm.stat_logger_plugins": {"probe": "probe.stats:Stats"},
    "vllm.io_processor_plugins": {"probe": "probe:io"},
    "vllm.endpoint_plugins": {"probe": "probe:Endpoint"},
}
INIT = """\
from .note import note

def platform():
    note("platform")

def general():
    note("general")
    from vllm import ModelRegistry
    ModelRegistry.register_model("ProbeForCausalLM", "probe.model:ProbeForCausalLM")
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    @register_model_loader("probe")
    class Loader(DummyModelLoader):
        def __init__(self, load_config):
            note("loader created")
            load_config.load_format = "dummy"
            super().__init__(load_config)

def io():
    note("io")

class Endpoint:
    name = "probe"
    required_tasks = None

    def __init__(self):
        note("endpoint created")

    def attach_router(self, app):
        note("endpoint")

    async def init_state(self, engine_client, state, args):
        pass
"""
NAMED = """\
from .note import note

async def middleware(request, call_next):
    note("middleware")
    return await call_next(request)
"""
WORKER = """\
from vllm.v1.worker.cpu_worker import CPUWorker

from .note import note

class Worker(CPUWorker):
    def __init__(self, *words, **options):
        note("worker created")
        super().__init__(*words, **options)
"""
SCHEDULER = """\
from vllm.v1.core.sched.scheduler import Scheduler as Base

from .note import note

class Scheduler(Base):
    def __init__(self, *words, **options):
        note("scheduler created")
        super().__init__(*words, **options)
"""
PLATFORM = INIT.replace('note("platform")', 'note("platform")\n    return "probe.cpu.ProbePlatform"')
CPU = "from vllm.platforms.cpu import CpuPlatform\n\nclass ProbePlatform(CpuPlatform):\n    device_name = 'probe'\n"
TOOLS = """\
try:
    from vllm.tool_parsers import abstract_tool_parser as tools
except ImportError:  # before 0.13
    from vllm.entrypoints.openai.tool_parsers import abstract_tool_parser as tools

from probe.note import note

note("tool parser imported")

@tools.ToolParserManager.register_module("probe")
class Parser(tools.ToolParser):
    def __init__(self, *words, **options):
        note("tool parser created")
        super().__init__(*words, **options)

    def extract_tool_calls(self, model_output, request):
        found = tools.ExtractedToolCallInformation
        return found(tools_called=False, tool_calls=[], content="parsed " + model_output)
"""
REASONING = """\
from vllm.reasoning import ReasoningParser, ReasoningParserManager

from probe.note import note

note("reasoning parser imported")

@ReasoningParserManager.register_module("probe")
class Parser(ReasoningParser):
    def __init__(self, *words, **options):
        note("reasoning parser created")
        super().__init__(*words, **options)

    def is_reasoning_end(self, input_ids):
        return True

    def extract_content_ids(self, input_ids):
        return list(input_ids)

    def extract_reasoning(self, model_output, request):
        return "thought", model_output

    def extract_reasoning_streaming(self, *words):
        return None
"""
CONNECTOR = """\
from vllm.distributed.kv_transfer.kv_connector.v1 import base

from .note import note

note("connector imported")

class Connector(base.KVConnectorBase_V1):
    def __init__(self, *words, **options):
        note("connector created")
        super().__init__(*words, **options)

    def start_load_kv(self, forward_context, **options):
        note("connector used")

    def wait_for_layer_load(self, layer_name):
        pass

    def save_kv_layer(self, *words, **options):
        pass

    def wait_for_save(self):
        pass

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return 0, False

    def update_state_after_alloc(self, *words):
        pass

    def build_connector_meta(self, scheduler_output):
        return base.KVConnectorMetadata()
"""


def modules(init: str) -> dict[str, str]:
    """The modules of the package, with this source of its top."""
    named = plugins.LOGITS.replace("class Force", "class Named").replace('note("logits', 'note("named')
    return plugins.package(
        "probe",
        init,
        logits=plugins.LOGITS,
        stats=plugins.STATS,
        model=plugins.MODEL,
        cpu=CPU,
        named=NAMED,
        named_logits=named,
        worker=WORKER,
        scheduler=SCHEDULER,
        tools=TOOLS,
        reasoning=REASONING,
        connector=CONNECTOR,
    )
