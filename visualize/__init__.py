"""Pictures, videos, pages and files of motion."""

from utils.paths import use_writable_caches

use_writable_caches()
