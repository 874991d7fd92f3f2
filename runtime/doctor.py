"""`storeops doctor`: is this machine fit, and if not, what to do. Reads only; starts and changes nothing."""

from __future__ import annotations

import resource
import shutil
import stat
import sys
import time
import zoneinfo
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table
from rich.text import Text

from models.domain.errors import NeedsOperator
from runtime import origin
from runtime.broker import check_login, parse_url, read_ca
from runtime.broker_mosquitto import find_program
from runtime.datadir import default_data_dir, open_data_dir, ray_token_path
from runtime.deployment import places_of
from runtime.ports import is_free
from runtime.postgres import check_url
from runtime.progress import Language, language_of_environment
from runtime.settings import Settings

MIB = 1024 * 1024
DISK_MIB_MIN = 500
DISK_MIB_GOOD = 4_000
MEMORY_MIB_GOOD = 2_000
OPEN_FILES_MIN = 4_096
PORTS_TRIED = 20
REGION_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `ok` false: storeops would not run well; `warning`: it runs, but know this. `do`: the remedy."""

    name: str
    ok: bool
    detail: str
    do: str = ""
    warning: bool = False


Say = Callable[[str, str], str]


def doctor(settings: Settings, language: Language | None = None) -> list[Check]:
    """All checks, in the order in which a start would meet them. Texts in English or Chinese. Never raises."""
    chinese = (language or language_of_environment()) == "zh"

    def say(english: str, chinese_text: str) -> str:
        return chinese_text if chinese else english

    checks = [_python(say), _origin(say), _data_folder(settings, say), _secrets(settings, say), _disk(settings, say)]
    checks += [_memory(say), _shared_memory(settings, say), _files(say), _clock(say)]
    checks += [_port(settings.gateway.port, settings.gateway.host, say("console port", "控制台端口"), say)]
    if settings.broker.kind != "url":
        checks += [
            _port(settings.broker.port, "127.0.0.1", say("broker port", "消息代理端口"), say),
            _broker(settings, say),
        ]
    else:
        checks.append(_broker_by_url(settings, say))
    if settings.ray.address == "local":
        checks.append(_ray(settings, say))
    return checks + _regions(settings, say)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """`{"ok": …, "checks": [{"name", "ok", "detail", "do", "warning"}, …]}`"""
    return {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]}


def as_table(checks: list[Check], language: Language | None = None) -> Table:
    """The same for a person."""
    chinese = (language or language_of_environment()) == "zh"
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for heading in ("", "检查", "结果", "怎么办") if chinese else ("", "check", "finding", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        mark = (
            Text("✗", "bold red") if not check.ok else Text("!", "bold yellow") if check.warning else Text("✓", "green")
        )
        table.add_row(mark, Text(check.name), Text(check.detail), Text(check.do))
    return table


def _python(say: Say) -> Check:
    found = sys.version_info[:2]
    return Check(
        "Python",
        (3, 11) <= found <= (3, 13),
        f"{sys.version.split()[0]} ({sys.executable})",
        "" if (3, 11) <= found <= (3, 13) else say("use Python 3.11, 3.12 or 3.13", "请使用 Python 3.11、3.12 或 3.13"),
    )


def _origin(say: Say) -> Check:
    name = say("own code", "程序来源")
    try:
        origin.check()
    except origin.ForeignCode as error:
        return Check(name, False, str(error), say(error.do, "请换一个目录启动，或从 PYTHONPATH 去掉该目录"))
    return Check(name, True, str(Path(origin.__file__).resolve().parent.parent))


def _data_folder(settings: Settings, say: Say) -> Check:
    name = say("data folder", "数据目录")
    folder = settings.data_dir or default_data_dir()
    try:
        data = open_data_dir(folder, create=False)
    except NeedsOperator as error:
        if error.code == "data_dir_missing":
            return Check(name, True, say(f"{folder} (made at the first start)", f"{folder}（首次启动时创建）"))
        return Check(name, False, error.message, error.do)
    mode = data.root.stat().st_mode & 0o777
    return Check(name, True, f"{data.root} ({mode:04o})")


def _secrets(settings: Settings, say: Say) -> Check:
    name = say("secrets", "密钥文件")
    folder = (settings.data_dir or default_data_dir()) / "secrets"
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        open_to_others = [path.name for path in [folder, *files] if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    except OSError:
        return Check(name, True, say("none yet", "尚无"))
    if open_to_others:
        fix = f"chmod -R go= {folder}"
        return Check(name, False, say("others may read: ", "他人可读：") + ", ".join(open_to_others), fix)
    return Check(name, True, say(f"{len(files)} files, for the owner alone", f"{len(files)} 个文件，仅所有者可读"))


def _nearest(path: Path) -> Path:
    return next(folder for folder in [path, *path.absolute().parents] if folder.exists())


def _disk(settings: Settings, say: Say) -> Check:
    free_mib = shutil.disk_usage(_nearest(settings.data_dir or default_data_dir())).free // MIB
    return Check(
        say("disk", "磁盘"),
        free_mib >= DISK_MIB_MIN,
        say(f"{free_mib:,} MiB free", f"可用 {free_mib:,} MiB"),
        "" if free_mib >= DISK_MIB_GOOD else say("free some space, or use --data", "请释放空间，或用 --data 换目录"),
        warning=free_mib < DISK_MIB_GOOD,
    )


def _memory(say: Say) -> Check:
    available_mib = psutil.virtual_memory().available // MIB
    short = available_mib < MEMORY_MIB_GOOD
    return Check(
        say("memory", "内存"),
        True,
        say(f"{available_mib:,} MiB available", f"可用 {available_mib:,} MiB"),
        say("2 GiB are comfortable", "建议至少 2 GiB") if short else "",
        warning=short,
    )


def _shared_memory(settings: Settings, say: Say) -> Check:
    name = say("shared memory", "共享内存")
    if not Path("/dev/shm").is_dir():  # noqa: S108 - its size is asked, nothing is written
        return Check(name, True, say("not used on this system", "本系统不使用"))
    free_mib = shutil.disk_usage("/dev/shm").free // MIB  # noqa: S108
    short = free_mib < settings.ray.object_store_mib
    fix = say("containers: --shm-size=1g", "容器请加 --shm-size=1g")
    return Check(name, True, f"{free_mib:,} MiB", fix if short else "", warning=short)


def _files(say: Say) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_MIN
    return Check(
        say("open files", "文件句柄"),
        enough,
        say(f"limit {soft}, may be raised to {hard}", f"限制 {soft}，可提升至 {hard}"),
        "" if enough else f"ulimit -Hn {OPEN_FILES_MIN}",
    )


def _clock(say: Say) -> Check:
    name = say("clock", "时钟")
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    if time.time() < newest - 86_400:
        late = say("the clock is behind the installed files", "系统时间早于已安装的文件")
        return Check(
            name, False, late, say("set the clock (timedatectl set-ntp true)", "请校时（timedatectl set-ntp true）")
        )
    try:
        zoneinfo.ZoneInfo("Asia/Shanghai")
    except zoneinfo.ZoneInfoNotFoundError:
        return Check(name, False, say("no time zone data", "缺少时区数据"), "make install")
    return Check(name, True, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _port(port: int, host: str, name: str, say: Say) -> Check:
    if port == 0 or is_free(port, host):
        return Check(name, True, f"{host}:{port or '*'}")
    following = next((other for other in range(port + 1, port + PORTS_TRIED) if is_free(other, host)), None)
    taken = say(f"{host}:{port} is in use", f"{host}:{port} 已被占用")
    if following is None:
        return Check(name, False, taken, say("stop what listens there", "请停止占用该端口的程序"))
    return Check(name, True, taken, say(f"{following} will be taken", f"将改用 {following}"), warning=True)


def _broker(settings: Settings, say: Say) -> Check:
    name = say("broker", "消息代理")
    program = find_program()
    fix = say("apt-get install mosquitto", "请安装：apt-get install mosquitto")
    if settings.broker.kind == "mosquitto" and program is None:
        return Check(name, False, say("mosquitto is not installed", "未安装 mosquitto"), fix)
    if settings.broker.kind == "iotcore" or program is None:
        return Check(name, True, say("iotcore: for development only", "iotcore：仅供开发"), fix, warning=True)
    return Check(name, True, program)


def _broker_by_url(settings: Settings, say: Say) -> Check:
    """Does it answer, is it who `broker.ca` says, does it let the server's user in?"""
    name = say("broker", "消息代理")
    try:
        info = parse_url(settings.broker.url or "", read_ca(settings.broker.ca))
        check_login(info, REGION_S_MAX)
    except NeedsOperator as error:
        return Check(name, False, error.message, error.do)
    return Check(name, True, f"{info.host}:{info.port}{', TLS' if info.tls else ''}")


def _regions(settings: Settings, say: Say) -> list[Check]:
    """One finding a region, where there are several: its chain's file, and whether what it has of its own answers."""
    if not settings.regions:
        return []
    try:
        places = places_of(settings)
    except NeedsOperator as error:
        return [Check(say("regions", "区域"), False, error.message, error.do)]
    checks = []
    for place in places:
        name = say(f"region {place.name}", f"区域 {place.name}")
        own = [what for what, url in (("database", place.database_url), ("broker", place.broker_url)) if url]
        try:
            if place.database_url is not None:
                check_url(place.database_url, REGION_S_MAX)
            if place.broker_url is not None:
                check_login(parse_url(place.broker_url, read_ca(settings.broker.ca)), REGION_S_MAX)
        except NeedsOperator as error:
            checks.append(Check(name, False, error.message, error.do))
        else:
            by_url = say(f", by URL: {', '.join(own)}", f"，使用 URL：{'、'.join(own)}") if own else ""
            checks.append(Check(name, True, f"{place.chain}{by_url}"))
    return checks


def _ray(settings: Settings, say: Say) -> Check:
    token = ray_token_path(settings.data_dir, settings.ray.address)
    try:
        private = not token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        private = True
    if not private:
        return Check("Ray", False, say(f"others may read {token}", f"他人可读 {token}"), f"chmod 600 {token}")
    return Check(
        "Ray",
        True,
        say(
            "opens ports on all addresses; only holders of its token get in",
            "会在所有地址上监听端口；只有持有令牌者可用",
        ),
        say(f"keep {token} secret; a firewall is better still", f"请保管好 {token}；最好再加防火墙"),
        warning=True,
    )
