"""Where the command `new` writes a draft, and how the draft names its tables from there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.onboarding.answers import Answers
    from include.onboarding.draft import Draft
    from include.onboarding.profile import Table


class Target:
    """Where a draft goes, and how it names its tables from there."""

    def __init__(
        self,
        files: list[Path],
        table: str,
        name: str | None,
        output: Path | None,
        prints: bool,
        settings: Settings,
    ) -> None:
        from include.onboarding.draft import path_in
        from include.onboarding.yaml_text import name_of

        output = None if prints else output
        self._name = name_of(name or table or files[0].name.split(".")[0])
        # Beside its table; tables of the data folder are shared, and may lie where nobody can
        # write. A database has no folder.
        folder = files[0].parent if files else Path()
        if output:
            folder = output.parent
        elif files and files[0].resolve().is_relative_to(settings.data_dir):
            folder = settings.usecase_dirs[0]
        self._paths = {
            source.resolve(): path_in(folder, source, settings.data_dir) for source in files
        }
        if len(self._paths) < len(files):
            raise ConfigError("--from names one table twice; give each once")
        self.path = output or folder / f"{self._name}.yaml"
        if self.path.stem != self._name:
            raise ConfigError(
                f"{self.path}: a use case file has the use case's name; call it {self._name}.yaml, "
                f"or give --name {self.path.stem}"
            )

    def draft(self, tables: list[Table], answers: Answers) -> Draft:
        """Return the draft of tables by answers."""
        from include.onboarding.draft import draft_table
        from include.onboarding.outcome_tables import arrange_tables

        arranged = arrange_tables(tables, answers)
        apart = arranged.outcomes
        return draft_table(
            arranged.main,
            answers,
            given_path=self._paths.get(arranged.main.path),
            name=self._name,
            others=[(each, self._paths.get(each.path, "")) for each in arranged.others],
            outcomes=None if apart is None else (apart, self._paths.get(apart.table.path, "")),
        )

    def read(self) -> str | None:
        """Return what stands in the file already, or None where there is none."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path} cannot be read ({error}); give another --output"
            ) from None

    def answers_in(self, old: str) -> Answers:
        """Return the answers of the draft that is there; refuse a file that is none."""
        from include.onboarding.redraft import answers_in

        answers = answers_in(old)
        if answers is None:
            raise ConfigError(
                f"{self.path} exists already and is no draft of `evergreen new`; remove it, or "
                "give another --name or --output"
            )
        return answers

    def write(self, drafted: Draft, tables: list[Table], old: str | None) -> None:
        """Write a draft; what a person changed in the one that is there stays.

        Raises:
            ConfigError: it cannot be written, or what was changed cannot be kept.
        """
        from include.onboarding.redraft import redraft

        text = drafted.text
        if old is not None:
            text = redraft(self.path, old, text, lambda answers: self.draft(tables, answers).text)
            if self.read() != old:  # while the questions were answered
                raise ConfigError(f"{self.path} was changed in the meantime; run it again")
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            try:
                temporary.write_text(text, encoding="utf-8")
                if old is None:
                    # Fails where somebody else has made the file since it was looked for.
                    self._make(temporary)
                else:
                    temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            raise ConfigError(f"{self.path} was made in the meantime; run it again") from None
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written ({error.strerror}); give another --output"
            ) from error

    def _make(self, temporary: Path) -> None:
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if self.path.exists():
                raise FileExistsError(self.path) from None
            temporary.replace(self.path)
