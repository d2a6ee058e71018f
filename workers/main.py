"""What `arq workers.main.WorkerSettings` imports: reads the settings, or says what is wrong and exits 2."""

from __future__ import annotations

from pipeline import logs
from pipeline.connections import NoRedis
from pipeline.settings import settings_or_exit
from workers.app import worker_settings

_settings = settings_or_exit()
logs.configure(_settings.log_format, _settings.log_level)

try:
    WorkerSettings = worker_settings(_settings)
except NoRedis as missing:
    raise SystemExit(2) from missing
