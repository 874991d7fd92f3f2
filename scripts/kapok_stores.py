"""Writes configs/chains/kapok-stores.csv: 998 stores of a chain that does not exist in districts and streets that do.

With the two that configs/chains/kapok.yaml describes by hand they are 1,000. The same file each time, from one seed.
Run it after a change: `python scripts/kapok_stores.py`.
"""

from __future__ import annotations

import csv
import io
import random
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "configs" / "chains" / "kapok-stores.csv"
SEED = 20261122
FIRST_YEAR, LAST_YEAR = 2008, 2026
OLD_UNTIL = 2012
"""Stores opened until then still have a face terminal of the first generation in their second lane, every other one."""
LABELS = ("city", "district", "street", "format", "hours", "opened", "owner")
HEADER = ("id", "zh", "en", "entity", "basket_owner", "families", *LABELS)

PLACES = """
gz 广州 Guangzhou 299
  天河 Tianhe: 石牌 Shipai, 冼村 Xiancun, 天河南 Tianhenan, 林和 Linhe, 员村 Yuancun, 棠下 Tangxia,
    车陂 Chebei, 五山 Wushan, 猎德 Liede, 沙河 Shahe
  越秀 Yuexiu: 北京 Beijing, 流花 Liuhua, 农林 Nonglin, 梅花村 Meihuacun, 黄花岗 Huanghuagang, 华乐 Huale,
    洪桥 Hongqiao, 六榕 Liurong, 珠光 Zhuguang
  海珠 Haizhu: 江南中 Jiangnanzhong, 新港 Xingang, 赤岗 Chigang, 琶洲 Pazhou, 昌岗 Changgang, 沙园 Shayuan,
    官洲 Guanzhou, 南洲 Nanzhou
  荔湾 Liwan: 沙面 Shamian, 华林 Hualin, 昌华 Changhua, 西村 Xicun, 花地 Huadi, 石围塘 Shiweitang, 多宝 Duobao
  白云 Baiyun: 三元里 Sanyuanli, 景泰 Jingtai, 同和 Tonghe, 永平 Yongping, 嘉禾 Jiahe, 石井 Shijing,
    金沙 Jinsha, 太和 Taihe
  黄埔 Huangpu: 大沙 Dasha, 鱼珠 Yuzhu, 萝岗 Luogang, 联和 Lianhe, 永和 Yonghe
  番禺 Panyu: 市桥 Shiqiao, 大石 Dashi, 洛浦 Luopu, 南村 Nancun, 钟村 Zhongcun, 小谷围 Xiaoguwei
  花都 Huadu: 新华 Xinhua, 花城 Huacheng, 狮岭 Shiling
  南沙 Nansha: 南沙 Nansha, 珠江 Zhujiang, 黄阁 Huangge
  增城 Zengcheng: 荔城 Licheng, 新塘 Xintang, 永宁 Yongning
  从化 Conghua: 街口 Jiekou, 江埔 Jiangpu
sz 深圳 Shenzhen 289
  福田 Futian: 华强北 Huaqiangbei, 园岭 Yuanling, 南园 Nanyuan, 沙头 Shatou, 梅林 Meilin, 莲花 Lianhua,
    香蜜湖 Xiangmihu, 华富 Huafu, 福保 Fubao
  罗湖 Luohu: 桂园 Guiyuan, 黄贝 Huangbei, 东门 Dongmen, 翠竹 Cuizhu, 南湖 Nanhu, 笋岗 Sungang, 东湖 Donghu,
    莲塘 Liantang
  南山 Nanshan: 南头 Nantou, 招商 Zhaoshang, 粤海 Yuehai, 沙河 Shahe, 蛇口 Shekou, 西丽 Xili, 桃源 Taoyuan
  宝安 Baoan: 新安 Xinan, 西乡 Xixiang, 航城 Hangcheng, 福永 Fuyong, 沙井 Shajing, 新桥 Xinqiao,
    松岗 Songgang, 石岩 Shiyan
  龙岗 Longgang: 平湖 Pinghu, 布吉 Buji, 坂田 Bantian, 南湾 Nanwan, 横岗 Henggang, 龙城 Longcheng, 坪地 Pingdi
  龙华 Longhua: 民治 Minzhi, 大浪 Dalang, 观湖 Guanhu, 福城 Fucheng, 观澜 Guanlan
  盐田 Yantian: 沙头角 Shatoujiao, 梅沙 Meisha, 海山 Haishan
  坪山 Pingshan: 坑梓 Kengzi, 马峦 Maluan
  光明 Guangming: 公明 Gongming, 凤凰 Fenghuang, 马田 Matian
fs 佛山 Foshan 120
  禅城 Chancheng: 祖庙 Zumiao, 石湾 Shiwan, 张槎 Zhangcha, 南庄 Nanzhuang
  南海 Nanhai: 桂城 Guicheng, 大沥 Dali, 狮山 Shishan, 里水 Lishui, 西樵 Xiqiao
  顺德 Shunde: 大良 Daliang, 容桂 Ronggui, 北滘 Beijiao, 乐从 Lecong, 陈村 Chencun, 伦教 Lunjiao
  三水 Sanshui: 西南 Xinan, 云东海 Yundonghai
  高明 Gaoming: 荷城 Hecheng
dg 东莞 Dongguan 110
  -: 莞城 Guancheng, 南城 Nancheng, 东城 Dongcheng, 万江 Wanjiang, 虎门 Humen, 长安 Changan, 厚街 Houjie,
    常平 Changping, 塘厦 Tangxia, 凤岗 Fenggang, 寮步 Liaobu, 大朗 Dalang, 石龙 Shilong, 松山湖 Songshanhu,
    樟木头 Zhangmutou
zs 中山 Zhongshan 45
  -: 石岐 Shiqi, 东区 Dongqu, 西区 Xiqu, 南区 Nanqu, 小榄 Xiaolan, 古镇 Guzhen, 三乡 Sanxiang, 坦洲 Tanzhou
zh 珠海 Zhuhai 50
  香洲 Xiangzhou: 拱北 Gongbei, 吉大 Jida, 前山 Qianshan, 翠香 Cuixiang, 唐家湾 Tangjiawan
  斗门 Doumen: 井岸 Jingan, 白蕉 Baijiao
  金湾 Jinwan: 三灶 Sanzao, 红旗 Hongqi
hz 惠州 Huizhou 45
  惠城 Huicheng: 桥东 Qiaodong, 桥西 Qiaoxi, 江南 Jiangnan, 江北 Jiangbei, 河南岸 Henanan
  惠阳 Huiyang: 淡水 Danshui, 秋长 Qiuchang
jm 江门 Jiangmen 25
  蓬江 Pengjiang: 白沙 Baisha, 环市 Huanshi
  江海 Jianghai: 江南 Jiangnan, 外海 Waihai
  新会 Xinhui: 会城 Huicheng
zq 肇庆 Zhaoqing 15
  端州 Duanzhou: 城东 Chengdong, 城西 Chengxi
  鼎湖 Dinghu: 坑口 Kengkou
"""
"""City, its stores; then its districts with their streets. Dongguan and Zhongshan have towns and no districts."""
FORMATS: tuple[tuple[str, str, str, int], ...] = (
    ("street", "", "", 60),
    ("station", "地铁", "Station", 16),
    ("office", "商务", "Office", 12),
    ("campus", "校园", "Campus", 7),
    ("hospital", "医院", "Hospital", 5),
)
"""Label, the word in both names, and how many of a hundred."""
FRANCHISEES = ("kapok-pearl", "kapok-harbour", "kapok-delta")


@dataclass(frozen=True, slots=True)
class Spot:
    """A street of a district, or a town: names in Chinese and romanised."""

    district: tuple[str, str]
    street: tuple[str, str]


@dataclass(slots=True)
class City:
    """A city, and how many stores it has."""

    code: str
    zh: str
    en: str
    stores: int
    spots: list[Spot]


def cities() -> list[City]:
    """What PLACES says."""
    found: list[City] = []
    district = ("", "")
    for line in PLACES.strip().splitlines():
        if not line.startswith(" "):
            code, zh, en, stores = line.split()
            found.append(City(code, zh, en, int(stores), []))
            continue
        name, colon, rest = line.strip().partition(":")
        if colon:
            district = _names(name) if name != "-" else ("", "")
        for spot in filter(None, ((rest if colon else line).strip().split(", "))):
            names = _names(spot.strip(", "))
            found[-1].spots.append(Spot(district, names) if district[0] else Spot(names, ("", "")))
    return found


def _names(text: str) -> tuple[str, str]:
    zh, _, en = text.partition(" ")
    return zh, en


def stores() -> list[tuple[str, ...]]:
    """All rows. Each place's stores are numbered by their age."""
    rng = random.Random(SEED)  # noqa: S311 - a made-up chain
    return [_store(rng, city, n) for city in cities() for n in range(city.stores)]


def _store(rng: random.Random, city: City, n: int) -> tuple[str, ...]:
    spot, number = city.spots[n % len(city.spots)], n // len(city.spots) + 1
    form, word_zh, word_en, _ = rng.choices(FORMATS, [one[3] for one in FORMATS])[0]
    numbers = -(-city.stores // len(city.spots))
    opened = FIRST_YEAR + (LAST_YEAR - FIRST_YEAR - 3) * (number - 1) // max(1, numbers - 1) + rng.randrange(4)
    franchise = rng.random() < 0.55
    old = opened <= OLD_UNTIL and rng.random() < 0.5
    (district_zh, district_en), (street_zh, street_en) = spot.district, spot.street
    place = " ".join(filter(None, (city.en, district_en, street_en, word_en)))
    return (
        "-".join(filter(None, (city.code, district_en.lower(), street_en.lower(), f"{number:02d}"))),
        f"{city.zh}{district_zh}{street_zh}{word_zh}{number if number > 1 else ''}店",
        f"{place} {number}" if number > 1 else place,
        rng.choice(FRANCHISEES) if franchise else "kapok",
        "pos" if rng.random() < 0.3 else "storeops",
        "f2=dragonfly-1" if old else "",
        city.en.lower(),
        district_en.lower(),
        street_en.lower(),
        form,
        "24h" if rng.random() < 0.3 else "day",
        str(opened),
        "franchise" if franchise else "own",
    )


def text() -> str:
    """The whole file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEADER, *stores()])
    return out.getvalue()


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
