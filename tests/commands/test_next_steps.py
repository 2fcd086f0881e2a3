"""Each next step that a message suggests leads on: it is run from the state that the message is printed in.

A step that a test can't take has a reason. A step with a new text fails the first test until it is registered in one of
the two tables.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import next_steps, pair
from vllm_plugins import cli

if TYPE_CHECKING:
    from tests.kit.index import Index
    from tests.kit.place import Completed, Place
    from tests.kit.templates import Templates

EDITING = "tests/cli/test_editing.py::test_the_next_steps_of_refusals_lead_on"
BUILD_HASHES = (
    "tests/commands/test_build_hashes.py::test_a_lock_has_the_hashes_and_a_bundle_the_files_of_build_requirements"
)
BUILDS = "tests/commands/test_builds_with_base.py::test_the_next_steps_of_refusals_lead_on"
OWN_INDEX = "tests/commands/test_own_index.py::test_the_next_steps_of_refusals_lead_on"
RUNNING = "tests/cli/test_run.py::test_the_next_steps_of_refusals_lead_on"
PARSER = "tests/cli/test_parser.py::test_a_wrong_command_line_is_an_error_whose_next_step_the_parser_accepts"
STATES = "test_a_missing_lock_one_that_is_out_of_date_and_one_that_is_not_installed"
FILES = "test_files_of_an_overlay_that_were_changed"
WHEELS = "test_another_wheel_next_to_the_lock_and_a_missing_one"
MANIFEST = "test_an_invalid_manifest_and_a_missing_one"
WORDS = "test_wrong_words_and_files_on_the_command_line"
TAKEN = "tests/commands/test_next_steps_taken.py::test_"
LOCAL = f"{TAKEN}the_entry_of_a_local_plugin_is_corrected"
GIT = f"{TAKEN}the_entry_of_a_git_plugin_is_corrected"
URL = f"{TAKEN}a_variable_in_a_url_is_corrected"
FIT = f"{TAKEN}a_repository_is_made_fit_to_be_locked"
EDITABLE = f"{TAKEN}editable_plugins_are_refused_for_production"
LOADS = f"{TAKEN}a_plugin_that_does_not_load_is_fixed_or_disabled"
OPTIONS = f"{TAKEN}options_of_lock_and_rollback_are_corrected"
PLACES = f"{TAKEN}places_of_files_are_corrected"
VARIABLES = f"{TAKEN}variables_are_corrected"
BUILT = f"{TAKEN}a_missing_built_wheel_is_restored"
DISABLED = f"{TAKEN}a_plugin_that_can_not_be_installed_is_disabled"
RELEASE = f"{TAKEN}a_release_of_vllm_is_named"
QUERIES = "tests/commands/test_next_steps_of_queries.py::test_"
NAMES = f"{QUERIES}names_and_services_are_corrected"
REVISION = f"{QUERIES}a_revision_of_the_lock_is_named"
OVERLAY = f"{QUERIES}an_overlay_to_roll_back_to_is_named"
DIFFERS = f"{QUERIES}files_that_differ_from_the_index_are_locked_again"
IMAGE = f"{QUERIES}the_name_of_an_image_is_corrected"
TOKENS = "tests/faults/test_token_urls.py::test_"
NODE = f"{TAKEN}a_node_becomes_like_its_server"
SERVED = "tests/review/test_served.py::test_the_command_tells_by_its_exit_code"
LINK = "tests/commands/test_baked_link.py::test_a_link_that_lets_the_overlay_into_commands_is_refused_by_verify"
PROCESS = f"{TAKEN}a_process_finds_the_files_that_variables_name"
# The text of a step, and the test that takes it.
TARGETS = "tests/commands/test_targets.py::test_the_next_steps_of_targets_lead_on"
OPTIONS = "tests/commands/test_targets.py::test_targets_of_the_command_line_make_the_same_lock"
SINGLE = "tests/commands/test_single_files.py::test_the_next_steps_of_refusals_lead_on"
EDITABLE_CODE = "tests/commands/test_editable_code.py::test_code_that_"
RUN = {
    "put the directory back; or, if the code has moved within the plugin, run vllm-plugins sync --reinstall": f"{EDITABLE_CODE}"
    "has_moved_within_the_plugin_is_installed_again",
    "install {…} as a program of this machine, so that the build uses that one; or set `editable: false` for plugin {…} in "
    "plugins.yaml": f"{EDITABLE_CODE}runs_a_program_of_the_build_environment_is_refused",
    "make the directory readable": f"{EDITABLE_CODE}can_not_be_read_is_a_problem_and_no_traceback",
    "name a plugin with `source: file`; vllm-plugins status lists all plugins": SINGLE,
    "find out what changed in the file; if you have reviewed the new one, change `sha256` of plugin {…} in plugins.yaml": SINGLE,
    "make it readable, or change `path` of plugin {…} in plugins.yaml": SINGLE,
    "check the network, your login for that host in ~/.netrc, and the URL in plugins.yaml": "tests/packages/"
    "test_single_files.py::test_a_file_that_can_not_be_downloaded_is_our_error",
    "restore the wheel from version control, or lock again: vllm-plugins lock": SINGLE,
    "fix the file of plugin {…}, or set `enabled: false` for it in plugins.yaml, and run vllm-plugins lock": SINGLE,
    "report this, with the traceback above and the output of vllm-plugins --version": "tests/commands/test_streams.py::"
    "test_a_fault_of_ours_is_an_error_with_its_traceback",
    "review each host, then allow it in {…}: by `policy.variables`, by an entry of `indexes`, or by an entry of `plugins` "
    "with the same url": "tests/faults/test_hostile_logins.py::test_what_the_policy_sends_is_sent",
    "write the output to a file on another disk, or to a pipe": "tests/commands/test_streams.py::"
    "test_output_that_is_not_taken_is_no_fault_of_the_disks_of_the_store",
    "vllm-plugins lock": STATES,
    "edit {…} yourself, then run vllm-plugins lock": EDITING,
    "name another plugin or version; to keep the entry, add it with --no-lock, and {…}": "tests/cli/test_editing.py::"
    "test_a_plugin_that_can_not_be_locked_is_added_without_the_lock",
    "name one of the plugins": EDITING,
    "vllm-plugins completion bash": "tests/cli/test_completion.py::test_a_shell_must_be_named",
    "vllm-plugins run -- vllm serve MODEL": RUNNING,
    "name a program on the PATH, or by its path": RUNNING,
    "name a program that this user can run": RUNNING,
    "add a plugin to it: vllm-plugins add NAME": "tests/cli/test_init.py::test_a_new_manifest_is_valid_and_can_be_edited",
    "remove the one that is out of date, or name the lock with --lock or VLLM_PLUGIN_LOCK": "tests/commands/test_named_files.py::"
    "test_two_locks_of_one_manifest_are_refused_by_commands_and_starts",
    "free some space, or make {…} a directory that this user can write to": "tests/cli/test_init.py::"
    "test_a_schema_that_can_not_be_written_leaves_no_manifest_behind",
    "name one of the plugins; vllm-plugins why NAME shows which plugin requires a package": EDITING,
    "name a directory, such as ./my-plugin": EDITING,
    "leave out --name; another name is a change of `name` in plugins.yaml": EDITING,
    "name the directory of a project": EDITING,
    "write `indexes: {{…}: {url: https://…}}` into plugins.yaml first": EDITING,
    "vllm-plugins add {…} {…} {…}": EDITING,
    "vllm-plugins remove {…}, then add it again, or give this one another name with --name": EDITING,
    "write a version, as in {…}@1.2.3; for a git repository write git+URL@{…}": EDITING,
    "add a target for this environment to plugins.yaml, then run vllm-plugins lock; to look at another target, "
    "name it with --target": TARGETS,
    "name one of these with --target": TARGETS,
    "leave --base out: each target names its base": TARGETS,
    "give its base, as in --target {…}=here, or add `targets` to plugins.yaml": TARGETS,
    "lock the other targets with --target, and this one on a machine of its kind; or correct `{…}` in {…}": TARGETS,
    "give --target a name alone, or add the target to plugins.yaml": TARGETS,
    "give each --target a name of its own": OPTIONS,
    "give the target a name and a base, as in --target dev=here --target production=base.json": OPTIONS,
    "run vllm-plugins lock with --target for each, as above, or add `targets` to plugins.yaml; vllm-plugins lock --base here locks for "
    "this environment alone": OPTIONS,
    "move one of the targets to a plugins.yaml of its own": "tests/commands/test_targets.py::"
    "test_targets_that_markers_can_not_tell_apart_are_refused",
    "vllm-plugins lock --merge {…}": TARGETS,
    "name a snapshot as `base`, which vllm-plugins base -o base.json writes there": TARGETS,
    "copy {…}/ from the machine where it was locked, next to the lock": "tests/commands/test_targets.py::"
    "test_targets_that_were_locked_on_two_machines_are_merged",
    "give both machines the same plugins.yaml, and lock there: vllm-plugins lock --target NAME": "tests/commands/"
    "test_targets.py::test_targets_that_were_locked_on_two_machines_are_merged",
    "run vllm-plugins lock --target {…} on a machine of that kind, and lock the other targets here with --target; "
    "then bring both locks together: vllm-plugins lock --merge OTHER.lock": "tests/commands/test_targets.py::"
    "test_targets_that_were_locked_on_two_machines_are_merged",
    "vllm-plugins sync": STATES,
    "vllm-plugins sync --reinstall": FILES,
    "find out who changed it, then run vllm-plugins sync --reinstall": FILES,
    "run vllm-plugins lock and review the change, or restore the lock from version control": "test_an_edited_lock",
    "remove {…}, then run vllm-plugins sync": WHEELS,
    "take them from version control, or run this where the index can be reached: "
    "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle": WHEELS,
    "unlock the keyring, or unset PIP_KEYRING_PROVIDER and UV_KEYRING_PROVIDER": "tests/packages/test_pip_config.py::"
    "test_a_keyring_that_waits_for_somebody_is_an_error",
    "remove the link, then run the command again; to fill a directory elsewhere: vllm-plugins bundle -o DIRECTORY": "tests/"
    "cli/test_bundle.py::test_nothing_is_written_or_removed_through_a_link_in_place_of_the_directory",
    "correct {…}, then run the command again": MANIFEST,
    "write one here with vllm-plugins init, or name another with --config or VLLM_PLUGIN_CONFIG": MANIFEST,
    "{…} --help": WORDS,
    "give it, as in {…}; for all options: {…} --help": "tests/cli/test_parser.py::"
    "test_a_command_that_lacks_something_shows_an_example",
    **dict.fromkeys(("vllm-plugins --help", "vllm-plugins {…} --help", "vllm-plugins --version"), PARSER),
    "vllm-plugins prune --keep 3, or vllm-plugins prune --older-than 30d": WORDS,
    "name a file in a directory that you can write to": WORDS,
    "set it to a number of seconds, or unset it": WORDS,
    "write a new one in the vLLM image: vllm-plugins base -o base.json": WORDS,
    "vllm-plugins lock, in this environment": "tests/commands/test_lock_environments.py::"
    "test_a_dependency_of_other_machines_restricts_the_lock_to_this_kind",
    "change `path` of plugin {…} in plugins.yaml": LOCAL,
    "correct `package` in plugins.yaml, or leave it out": LOCAL,
    "correct `extras` in plugins.yaml": LOCAL,
    "keep one of them in plugins.yaml, and set `enabled: false` for the others": LOCAL,
    "read the output above; `python -m build` in the project of {…} must work": LOCAL,
    "put {…} into the project of {…}, to be read there; or, if the project is part of a git repository, use `source: git` with "
    "`subdirectory`": LOCAL,
    "fix the repository until `git status` works in that directory": f"{TAKEN}"
    "a_repository_around_a_local_plugin_is_fixed",
    "change `ref` of plugin {…} in plugins.yaml to an existing one": GIT,
    "check your access to the submodules of plugin {…}, whose addresses are in .gitmodules of the repository, with git ls-remote": f"{TAKEN}"
    "a_submodule_is_fetched_from_a_place_that_can_be_reached",
    "give plugin {…} a `ref` in plugins.yaml, or change the default branch at the server": GIT,
    "ask the authors of plugin {…} to put {…} into the repository, or change `ref` in plugins.yaml to a commit that has it": f"{TAKEN}"
    "a_build_reads_a_file_that_its_repository_lacks",
    "change `subdirectory` of plugin {…} in plugins.yaml to the directory of its project": GIT,
    "write the tag's name or the commit as `ref` of plugin {…} in plugins.yaml": GIT,
    "check the url of plugin {…} and your access to it, with git ls-remote": GIT,
    "set {…}, or remove ${{…}} from `url` of plugin {…} in plugins.yaml": URL,
    "set {…} without the line break (the last line of a file often ends with one)": URL,
    "change `url` of plugin {…} in plugins.yaml": URL,
    "ask the authors of plugin {…} to remove the link, or change `ref` in plugins.yaml to a commit without it": FIT,
    "push a commit to it, or change `url` of plugin {…} in plugins.yaml": FIT,
    "use a repository with SHA-1 commits (git init --object-format=sha1)": FIT,
    "set `editable: false` for them in plugins.yaml, then run vllm-plugins lock": EDITABLE,
    "vllm-plugins export --format pylock, or set `editable: false` in plugins.yaml and lock again": EDITABLE,
    "run this while the image is built: VLLM_PLUGIN_FROZEN=0 vllm-plugins sync": EDITABLE,
    "correct `loads` of plugin {…} in plugins.yaml and run vllm-plugins lock": LOADS,
    "fix {…} or ask its authors to, or set `enabled: false` for plugin {…} in plugins.yaml and run vllm-plugins lock": LOADS,
    "give only the name; put the versions that you allow into plugins.yaml": OPTIONS,
    "name a plugin of plugins.yaml or a package of plugins.lock": OPTIONS,
    "name a lock of its own for {…}: give another --lock or VLLM_PLUGIN_LOCK, or none of them; if the lock is a link, remove the link": "tests/commands/test_named_files.py::test_no_command_writes_the_lock_of_another_manifest",
    "vllm-plugins lock --check --rebuild": OPTIONS,
    "list the keys: vllm-plugins history": OPTIONS,
    "name another path for {…}; one whose name is - is ./-": "tests/commands/test_streams.py::"
    "test_a_dash_in_place_of_a_file_is_standard_output",
    "write the whole name, as in refs/heads/NAME; git show-ref {…} lists them": "tests/cli/test_diff.py::"
    "test_a_tag_with_the_name_of_a_branch_is_not_compared_in_its_place",
    "vllm-plugins diff ./{…} for the file, or vllm-plugins diff {…}^0 for the revision": "tests/cli/test_diff.py::"
    "test_a_file_with_the_name_of_a_revision_is_not_compared_in_its_place",
    "take the previous plugins.lock from version control, then run vllm-plugins sync": OPTIONS,
    "correct --config, or write plugins.yaml there": PLACES,
    "change to a directory that exists, such as `cd ~`": "tests/commands/test_streams.py::test_a_deleted_working_directory_is_an_error",
    "fix UV_KEYRING_PROVIDER, or keyring-provider in uv.toml": VARIABLES,
    "choose a file in a directory that this user can write": PLACES,
    "choose a directory that this user can write: vllm-plugins bundle -o DIRECTORY": PLACES,
    "make it a file that you can read": PLACES,
    "unset {…}, or set it to a valid value, as in {…}={…}": VARIABLES,
    "fix what the output above names, until `pip config list` works": VARIABLES,
    "check the network, your login, and the indexes of `pip config list`": VARIABLES,
    "check the network, the URL of index {…}": OWN_INDEX,
    "{…}; if its file was removed or replaced there, lock it again: {…}": "tests/cli/test_bundle.py::"
    "test_a_file_that_the_index_replaced_or_removed_is_locked_again",
    "name a proxy that begins with http:// in ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and `proxy` of pip's configuration, or exclude "
    "the host with NO_PROXY": "tests/packages/test_proxies.py::test_a_host_that_the_next_step_excludes_is_read",
    "make it a readable file, or remove it; `pip config list` shows the index or find-links that it is of": "tests/faults/"
    "test_pipes.py::test_a_pipe_or_a_device_in_a_directory_of_wheels",
    "remove it, or take its directory out of find-links, which `pip config list` shows": "tests/faults/test_pipes.py::"
    "test_a_pipe_or_a_device_in_a_directory_of_wheels_is_not_given_to_an_installer",
    "vllm-plugins lock, which builds it with packages that it locks, too": BUILD_HASHES,
    "find out who changed it; if the file is right, build and lock again, and review the change: vllm-plugins lock --upgrade-package {…}": BUILD_HASHES,
    "write `build: {with-base: [{…}]}` for plugin {…} in plugins.yaml": BUILDS,
    "write `build: {requires: [{…}]}` for plugin {…} in plugins.yaml, with the package that has this module": BUILDS,
    "write `build: {requires: ['{…}']}` for plugin {…} in plugins.yaml": BUILDS,
    "remove {…} from `with-base` in plugins.yaml, or correct its name": BUILDS,
    "VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle, or copy the wheels into this directory": VARIABLES,
    "vllm-plugins lock --config {…}": PROCESS,
    "give this node the plugins.lock of the server, then run vllm-plugins sync": NODE,
    "start all nodes from the same image": NODE,
    "name the server, as in vllm-plugins status --url http://localhost:8000": SERVED,
    "start the server again with this lock, or name the lock that it should have with --lock": SERVED,
    "start it from an image with the manager, and with vllm_plugins in VLLM_PLUGINS if that is set": SERVED,
    "check that the server answers: vLLM serves /metrics on the port of its API": SERVED,
    "set {…} to the output of vllm-plugins status --expect on a node that is right": NODE,
    "mount or create the file; set VLLM_PLUGIN_OPTIONAL=1 if vLLM may start without plugins": PROCESS,
    "set `enabled: false` for one of them in plugins.yaml, or name another `version`; {…}": f"{TAKEN}"
    "a_conflict_is_resolved_by_leaving_one_plugin_out",
    "run `vllm-plugins base -o base.json` in the vLLM image, here `vllm-plugins lock --base base.json`": f"{TAKEN}"
    "a_plugin_that_requires_vllm_is_locked_with_a_snapshot",
    "find out who changed it; if the source is right, lock it again, and review the change: "
    "vllm-plugins lock --upgrade-package NAME": f"{TAKEN}a_file_that_was_replaced_at_the_index_is_locked_again",
    "set `editable: false` in plugins.yaml, then run vllm-plugins lock": EDITABLE,
    "take them from version control, or build them: VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle": BUILT,
    "if the change is intended, run `vllm-plugins lock` and review the new lock": BUILT,
    "restore the wheel from version control; or build and lock it again: vllm-plugins lock --upgrade-package {…}": BUILT,
    "set `enabled: false` in plugins.yaml for a plugin that needs one of them, and lock again": DISABLED,
    "name one release: vllm-plugins lock --base vllm==0.32.0": RELEASE,
    "{…}, or name a snapshot that `vllm-plugins base` wrote in the image": "tests/commands/test_configuration.py::"
    "test_what_forbids_all_indexes_is_named_where_a_plugin_is_not_found",
    "name a release that the index has, or a snapshot that `vllm-plugins base` wrote in the image": RELEASE,
    "find out who changed the lock and why; then run vllm-plugins lock, and review the difference": f"{TAKEN}"
    "a_lock_that_contradicts_plugins_yaml_is_made_again",
    "run `vllm-plugins lock`: it keeps the pins that both sides agree on and resolves the rest": "tests/cli/"
    "test_lock.py::test_the_next_step_for_a_lock_with_merge_conflicts_leads_on",
    "leave --resolver out: uv then resolves": "tests/commands/test_lock_other_bases.py::"
    "test_pip_compile_is_refused_for_it",
    "set VLLM_PLUGINS to vllm_plugins and one of them, or disable the others in plugins.yaml": "tests/install/"
    "test_load_check.py::test_two_active_platform_plugins_are_refused_and_one_can_be_chosen",
    "{…}{…}vllm-plugins lock": "tests/install/test_load_check.py::"
    "test_each_function_is_called_and_the_working_ones_can_be_chosen",
    "correct VLLM_PLUGIN_CONFIG; to use a lock without a manifest, unset it and set VLLM_PLUGIN_LOCK={…}": "tests/"
    "startup/test_hook.py::test_a_named_manifest_that_is_missing_next_to_a_lock_stops_vllm",
    "{…}, where code of these plugins may run; a check builds only with --rebuild": "tests/faults/test_review_builds.py::"
    "test_every_plugin_that_would_be_built_is_named_with_the_reason",
    "replace the link, which an earlier release has written: vllm-plugins sync --bake; or remove it: vllm-plugins sync "
    "--unbake": LINK,
    "take {…} out of PYTHONPATH, then run vllm-plugins verify again": LINK,
    "vllm-plugins sync --bake, or vllm-plugins sync --unbake": "tests/commands/test_baked_link.py::"
    "test_a_link_to_another_overlay_than_the_locks_is_refused",
    "find out why; if the change is intended, accept it: {…}": "tests/packages/test_attestations.py::"
    "test_an_upgrade_to_another_publisher_is_refused_until_it_is_accepted",
    "{…}{…}, or use another environment": "tests/locking/"
    "test_newest.py::test_a_version_in_the_manifest_accepts_an_older_release",
    "name a tag: vllm-plugins push {…}:TAG": IMAGE,
    "write a variable in its place, as in https://${TOKEN}@…, and run vllm-plugins lock": "tests/commands/"
    "test_images.py::test_a_manifest_with_a_password_is_not_pushed",
    "correct the name, as in oci:plugins-image:v1": IMAGE,
    "name the registry, too, as in registry.example/team/plugins:v1": IMAGE,
    "check the name of the directory, the tag and the digest": IMAGE,
    "give this user write access to it, or choose another: vllm-plugins pull IMAGE -o DIRECTORY": IMAGE,
    "choose a directory for each image: vllm-plugins pull IMAGE -o DIRECTORY": IMAGE,
    "choose a directory of your own: vllm-plugins pull IMAGE -o DIRECTORY": "tests/faults/test_who_may.py::"
    "test_a_pull_believes_no_directory_of_another_user",
    "name one release: vllm-plugins outlook --to vllm==0.33.0": NAMES,
    "vllm-plugins why {…}": NAMES,
    "vllm-plugins tree": NAMES,
    "vllm-plugins audit --service osv": NAMES,
    "{…}, or name another manifest with {…}": NAMES,
    "list the keys: vllm-plugins history; list the commits: git log --oneline": REVISION,
    "commit it, or name one of the commits that `git log --oneline -- {…}` shows": REVISION,
    "name another of the commits that `git log --oneline -- {…}` shows": REVISION,
    "if you trust the repository, run git {…} there: a partial clone downloads the file": REVISION,
    "if you trust it: git config --global --add safe.directory {…}": f"{QUERIES}"
    "a_repository_of_another_user_is_trusted",
    "choose one of this project: vllm-plugins history": OVERLAY,
    "choose another one: vllm-plugins history": OVERLAY,
    "{…}, or choose another store with --registry-dir": OVERLAY,
    "vllm-plugins lock, then vllm-plugins sync": f"{QUERIES}a_changed_source_is_locked_and_installed_again",
    "run vllm-plugins sync --reinstall": f"{QUERIES}a_wrong_list_of_files_is_written_again",
    "find out which of them is right; to take those of the index and review the change: vllm-plugins lock {…}": DIFFERS,
    "find out who changed the lock and why; restore it from version control, or derive it again: "
    "vllm-plugins lock {…}": DIFFERS,
    "restore it from version control, or resolve everything again: vllm-plugins lock --upgrade": DIFFERS,
    "{…}, or set VLLM_PLUGIN_REGISTRY_DIR to another directory": PLACES,
    "ask the plugin's authors to return the qualified name of their platform, or set `enabled: false` for the plugin "
    "in plugins.yaml, and run vllm-plugins lock": f"{QUERIES}a_platform_that_is_no_name_is_disabled",
    "install the system package that has {…}, and run the command again": BUILDS,
    "nothing, if it works with the module of {…}; otherwise set `enabled: false` for {…} in plugins.yaml": f"{QUERIES}a_module_that_another_package_of_the_environment_has_names_both",
    "ask the plugin's authors to rename it, or set `enabled: false` for the plugin in plugins.yaml": f"{QUERIES}"
    "a_hidden_module_is_disabled",
    "configure the token as the login of that index; if this part of its URL is not secret, "
    "run VLLM_PLUGIN_PUBLIC_URLS=1 vllm-plugins lock": f"{TOKENS}an_index_with_a_token_in_its_path_is_not_locked",
    "ask the operator of the index for addresses without a signature; if they are not secret, "
    "run VLLM_PLUGIN_PUBLIC_URLS=1 vllm-plugins lock": f"{TOKENS}a_file_with_a_signed_address_is_not_locked",
    "push it, or change `ref` of plugin {…} in plugins.yaml to an existing one": GIT,
    "check the network, and the indexes of `pip config list`; if the release was removed there, "
    "lock another: vllm-plugins lock --upgrade-package {…}": f"{TAKEN}a_release_that_was_removed_from_the_index_is_replaced",
    "push it, or lock the commit that is there now: vllm-plugins lock --upgrade-package {…}": f"{TAKEN}"
    "a_branch_that_was_rewritten_is_locked_again",
}
_OTHERS = "somebody else has to act: the author of a package, or the operator of an index"
_PROGRAM = "another program has to be installed, configured or repaired first"
_DISK = "rights, space or the owner of a directory have to change, and root, as whom CI runs, may do everything"
_DAMAGE = "only a fault of a program that is started leads there; tests/faults makes it"
_WALK = "locking finds and names the plugin before; what is left is for an index that changes in between"
_MACHINE = "another machine, its clock, or how a server is started has to change first"
_PASSED = "the whole text is filled in, and is among the steps above"
_OVERRIDES = "the user decides what of the base is replaced, and how vLLM is started; test_overrides.py has messages"
_IMAGE = "an image in a registry, or the login of Docker, has to change first"
# The beginnings of the other steps, and why no test takes them.
NOT_TAKEN = {
    r"report (it|this)|don't use that file|ask the authors of|try again; if it fails again, report": _OTHERS,
    r"let \[build-system\] requires of plugin|remove \{…\} from the build requirements": _OTHERS,
    r"set `enabled: false` for the plugin with this file": _OTHERS,
    r"pip install |install (git|a newer git)|git version; until it works|run `pip (config list|install uv)`": _PROGRAM,
    r"fix PIP_|fix the file, or set UV_NO_CONFIG|set PIP_INDEX_URL|let what it prints|\{…\} -m pip --version": _PROGRAM,
    r"give this user (read|write) access|\{…\}, or set VLLM_PLUGIN_REGISTRY_DIR ": _DISK,
    r"free some space|check that the disk is not full|fix the permissions of the file|make it readable, or change": _DISK,
    r"run this as the user who owns the interpreter|set VLLM_PLUGIN_INSTALLER=pip, or VLLM_PLUGIN_REGISTRY_DIR": _DISK,
    r"read the output of the installer above|try the other installer|vllm-plugins sync --installer pip, which": _DAMAGE,
    r"fix what its output names; only uv |use the other resolver: |start again; let only vllm-plugins prune|change `ref` of plugin \{…\} in .* to the full": _DAMAGE,
    r"choose another version of it|name another release with|set `enabled: false` for (that|one) plugin": _WALK,
    r"vllm-plugins lock, then review the change: git diff": _WALK,
    r"run vllm-plugins lock (on a machine of that kind|where the CUDA toolkit)|add the index that has it|set the clock of this machine": _MACHINE,
    r"set these variables before the process starts|try again, or choose another service|use an ssh key": _MACHINE,
    r"check the name of the image; a copy|copy the image again|correct the file, or set DOCKER_CONFIG": _IMAGE,
    r"run \{…\}\{…\} get by hand": _IMAGE,
    r"change `version` of (these|\{…\}) in `overrides`|remove it from `overrides` in plugins.yaml": _OVERRIDES,
    r"start (it|vLLM) with vllm-plugins run|take \{…\} out of PYTHONPATH, or run vllm-plugins sync --bake": _OVERRIDES,
    r"correct it, in the environment or in the files that `pip config debug` names": _PROGRAM,
    r"`pip config debug` names the files: keep \{…\} in one of them": _PROGRAM,
    r"name a release that has one: pip index versions vllm": _MACHINE,
    r"add more digits to `ref`": "the user knows which commit is meant",
    r"set `editable: false` for them in plugins.yaml, then run vllm-plugins lock and sync": "as for sync --frozen, above",
    r"wait until vllm-plugins prune or sync has ended": "time has to pass; tests of activation.hold wait",
    r"\{…\} \{…\}, \{…\}$": "chmod or chown of the named file; tests/startup/test__trust.py has each",
    r"\{…\}, \{…\}$|\{…\}; or accept the file without it": _PASSED,
}


def reason(text: str) -> str | None:
    """Why no test takes a step, or ``None``."""
    return next((reason for pattern, reason in NOT_TAKEN.items() if re.match(pattern, text)), None)


def test_every_next_step_is_registered() -> None:
    assert [step for step in next_steps.every() if step.text not in RUN and reason(step.text) is None] == []


def test_every_registered_step_is_still_in_the_source() -> None:
    texts = {step.text for step in next_steps.every()}
    assert RUN.keys() - texts == set()
    others = texts - RUN.keys()
    assert [pattern for pattern in NOT_TAKEN if not any(re.match(pattern, text) for text in others)] == []


def test_every_test_that_takes_a_step_exists() -> None:
    for test in RUN.values():
        file, _, name = test.rpartition("::")
        path = Path(__file__).parents[2] / file if file else Path(__file__)
        assert f"def {name}(" in path.read_text(encoding="utf-8")


def test_every_command_in_a_next_step_exists_and_so_do_its_options() -> None:
    (subparsers,) = [item for item in cli.build_parser()._actions if isinstance(item, argparse._SubParsersAction)]
    commands = subparsers.choices
    found = {
        match
        for step in next_steps.every()
        for match in re.findall(r"vllm-plugins ([a-z]+)((?: -[^\s,;:`]+| [^-\s,;:`]+)*)", step.text)
    }
    assert len(found) > 10
    wrong = []
    for command, tail in found:
        known = commands[command]._option_string_actions if command in commands else ()
        wrong += [f"{command} {option}" for option in re.findall(r" (--?[a-z][a-z-]*)", tail) if option not in known]
    assert wrong == []
    assert {command for command, _ in found} <= commands.keys()


def failed(done: Completed, error: str) -> str:
    """The next step of a command that ended with this error."""
    assert done.returncode != 0
    assert f"[{error}]" in done.stderr
    return done.stderr.rpartition("\n  next: ")[2].strip()


@pytest.fixture
def locked(place: Place, index: Index, templates: Templates) -> Place:
    def make() -> None:
        points = {"vllm.general_plugins": {"tiny": "tiny:register"}}
        pair.lock(place, index, entry_points=points, modules={"tiny.py": "def register():\n    pass\n"})

    return templates.fill(place, index, make)


def test_a_missing_lock_one_that_is_out_of_date_and_one_that_is_not_installed(locked: Place) -> None:
    data = locked.lock.read_bytes()
    locked.lock.unlink()
    assert failed(locked.run("sync", check=False), "lock-missing") == "vllm-plugins lock"
    locked.run("lock")
    assert locked.lock.read_bytes() == data
    problem = locked.run("status", "--json", check=False).json["problem"]
    assert (problem["error"], problem["next_step"]) == ("not-installed", "vllm-plugins sync")
    locked.run("sync")
    locked.run("status")
    locked.manifest.write_text(f"{locked.manifest.read_text()}# a comment\n", encoding="utf-8")
    problem = locked.run("status", "--json", check=False).json["problem"]
    assert (problem["error"], problem["next_step"]) == ("overlay-out-of-date", "vllm-plugins sync")
    locked.run("sync")
    locked.run("status")
    locked.pypi("tiny")
    assert failed(locked.run("sync", check=False), "lock-out-of-date") == "vllm-plugins lock"
    locked.run("lock")
    locked.run("sync")
    locked.run("status")


def test_files_of_an_overlay_that_were_changed(locked: Place) -> None:
    locked.run("sync")
    with (locked.site / "tiny.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert failed(locked.run("verify", check=False), "hash-mismatch").endswith("vllm-plugins sync --reinstall")
    problem = locked.run("status", "--json", check=False).json["problem"]
    assert (problem["error"], problem["next_step"]) == ("hash-mismatch", "vllm-plugins sync --reinstall")
    locked.run("sync", "--reinstall")
    locked.run("verify")
    locked.run("status")


def test_an_edited_lock(locked: Place) -> None:
    data = locked.lock.read_bytes()
    locked.lock.write_text(locked.lock_text.replace("tiny:register", "tiny:other"), encoding="utf-8")
    assert failed(locked.run("sync", check=False), "hash-mismatch").startswith("run vllm-plugins lock")
    locked.run("lock")
    assert locked.lock.read_bytes() == data
    locked.run("sync")


def test_another_wheel_next_to_the_lock_and_a_missing_one(locked: Place) -> None:
    (wheel,) = locked.wheels.iterdir()
    data = wheel.read_bytes()
    wheel.write_bytes(b"something else")
    assert (
        failed(locked.run("sync", check=False), "hash-mismatch") == f"remove {wheel.name}, then run vllm-plugins sync"
    )
    wheel.unlink()
    locked.run("sync")
    assert wheel.read_bytes() == data
    step = failed(locked.run("sync", "--offline", "--reinstall", check=False), "install-failed")
    assert step.endswith(": VLLM_PLUGIN_OFFLINE=0 vllm-plugins bundle")
    locked.run("bundle", env={"VLLM_PLUGIN_OFFLINE": "0"})
    locked.run("sync", "--offline", "--reinstall")


def test_an_invalid_manifest_and_a_missing_one(locked: Place) -> None:
    text = locked.manifest.read_text(encoding="utf-8")
    locked.manifest.write_text(text.replace("package: tiny", "pakage: tiny"), encoding="utf-8")
    done = locked.run("lock", check=False)
    assert failed(done, "manifest-invalid") == "correct plugins.yaml, then run the command again"
    assert "unknown key; did you mean package?" in done.stderr
    locked.manifest.unlink()
    assert failed(locked.run("lock", check=False), "usage").startswith("write one here with vllm-plugins init, ")
    (locked.config / "other.yaml").write_text(text, encoding="utf-8")
    locked.run("lock", "--config", locked.config / "other.yaml")
    locked.manifest.write_text(text, encoding="utf-8")
    locked.run("lock")


def test_wrong_words_and_files_on_the_command_line(locked: Place) -> None:
    assert failed(locked.run("prune", "--keep", "x", check=False), "usage") == "vllm-plugins prune --help"
    locked.run("prune", "--help")
    assert failed(locked.run("prune", check=False), "usage").startswith("vllm-plugins prune --keep 3, or ")
    locked.run("prune", "--keep", "3")
    locked.run("prune", "--older-than", "30d")
    for words in (("export", "--format", "dot"), ("base",)):
        wrong = locked.run(*words, "-o", locked.manifest / "file", check=False)
        assert failed(wrong, "usage") == "name a file in a directory that you can write to"
        locked.run(*words, "-o", locked.root / "file")
    words = ("export", "--format", "cyclonedx")
    wrong = locked.run(*words, env={"SOURCE_DATE_EPOCH": "now"}, check=False)
    assert failed(wrong, "usage") == "set it to a number of seconds, or unset it"
    locked.run(*words, env={"SOURCE_DATE_EPOCH": "1700000000"})
    (locked.root / "base.json").write_text("{}", encoding="utf-8")
    wrong = locked.run("lock", "--base", locked.root / "base.json", check=False)
    assert failed(wrong, "usage") == "write a new one in the vLLM image: vllm-plugins base -o base.json"
    locked.run("base", "-o", locked.root / "base.json")
    locked.run("lock", "--base", locked.root / "base.json")
