"""Districts of Seoul, kinds of shops, their names and menus."""

from dataclasses import dataclass

# Korean and English name, latitude and longitude of the centre, share of the population.
DISTRICTS = (
    ("강남구", "Gangnam", 37.4959, 127.0664, 5.6),
    ("강동구", "Gangdong", 37.5492, 127.1465, 4.8),
    ("강북구", "Gangbuk", 37.6469, 127.0147, 3.1),
    ("강서구", "Gangseo", 37.5658, 126.8226, 6.0),
    ("관악구", "Gwanak", 37.4654, 126.9438, 5.1),
    ("광진구", "Gwangjin", 37.5481, 127.0857, 3.6),
    ("구로구", "Guro", 37.4955, 126.8581, 4.2),
    ("금천구", "Geumcheon", 37.4600, 126.9001, 2.4),
    ("노원구", "Nowon", 37.6555, 127.0771, 5.3),
    ("도봉구", "Dobong", 37.6658, 127.0317, 3.3),
    ("동대문구", "Dongdaemun", 37.5838, 127.0507, 3.6),
    ("동작구", "Dongjak", 37.4971, 126.9443, 4.0),
    ("마포구", "Mapo", 37.5622, 126.9087, 3.8),
    ("서대문구", "Seodaemun", 37.5820, 126.9356, 3.2),
    ("서초구", "Seocho", 37.4769, 127.0378, 4.3),
    ("성동구", "Seongdong", 37.5506, 127.0409, 2.9),
    ("성북구", "Seongbuk", 37.6023, 127.0250, 4.5),
    ("송파구", "Songpa", 37.5056, 127.1144, 6.9),
    ("양천구", "Yangcheon", 37.5270, 126.8561, 4.6),
    ("영등포구", "Yeongdeungpo", 37.5206, 126.9139, 4.0),
    ("용산구", "Yongsan", 37.5311, 126.9811, 2.3),
    ("은평구", "Eunpyeong", 37.6176, 126.9227, 4.9),
    ("종로구", "Jongno", 37.5990, 126.9861, 1.5),
    ("중구", "Jung", 37.5576, 126.9942, 1.3),
    ("중랑구", "Jungnang", 37.5953, 127.0939, 4.1),
)


@dataclass(frozen=True)
class Category:
    """A kind of shop: names, a usual price in won, its hours of demand, its menu, and what people
    who want it also type."""

    korean: str
    english: str
    price: int
    peaks: tuple[int, ...]
    menu: tuple[str, ...]
    asked: tuple[str, ...]


CATEGORIES = (
    Category(
        "치킨",
        "Chicken",
        21000,
        (19, 21),
        ("후라이드", "양념치킨", "간장치킨", "치즈볼"),
        ("바삭한 닭튀김", "치맥", "통닭", "fried chicken", "맥주 안주"),
    ),
    Category(
        "피자",
        "Pizza",
        24000,
        (18, 20),
        ("페퍼로니", "고구마피자", "불고기피자", "콜라"),
        ("치즈 듬뿍 도우", "pizza delivery", "파티 음식", "이탈리안"),
    ),
    Category(
        "한식",
        "Korean",
        11000,
        (12, 18),
        ("김치찌개", "제육볶음", "비빔밥", "된장찌개"),
        ("집밥", "얼큰한 찌개", "korean food", "밥이랑 반찬"),
    ),
    Category(
        "분식",
        "Snacks",
        9000,
        (12, 16),
        ("떡볶이", "순대", "튀김", "김밥"),
        ("매콤한 떡", "학교 앞 간식", "street food", "순대랑 튀김 세트"),
    ),
    Category(
        "중식",
        "Chinese",
        13000,
        (12, 19),
        ("짜장면", "짬뽕", "탕수육", "군만두"),
        ("중국집", "자장면", "chinese noodles", "새콤달콤 돼지고기튀김"),
    ),
    Category(
        "일식",
        "Japanese",
        16000,
        (12, 19),
        ("돈까스", "우동", "규동", "라멘"),
        ("일본 음식", "튀긴 돼지고기", "japanese food", "따뜻한 면 요리"),
    ),
    Category(
        "카페",
        "Cafe",
        7000,
        (9, 15),
        ("아메리카노", "라떼", "바닐라라떼", "스콘"),
        ("커피", "시원한 음료", "coffee", "작업하기 좋은 곳"),
    ),
    Category(
        "디저트",
        "Dessert",
        9500,
        (15, 21),
        ("티라미수", "마카롱", "빙수", "와플"),
        ("달달한 거", "케이크", "sweet dessert", "빙과"),
    ),
    Category(
        "버거",
        "Burger",
        11500,
        (12, 20),
        ("치즈버거", "새우버거", "감자튀김", "밀크쉐이크"),
        ("햄버거", "패스트푸드", "burger and fries", "빵 사이에 고기"),
    ),
    Category(
        "족발",
        "Jokbal",
        34000,
        (20, 22),
        ("앞다리족발", "보쌈", "막국수", "주먹밥"),
        ("돼지 다리", "쫄깃한 고기", "pork feet", "막걸리 안주"),
    ),
    Category(
        "국밥",
        "Gukbap",
        10500,
        (8, 13),
        ("순대국밥", "돼지국밥", "설렁탕", "수육"),
        ("해장", "뜨끈한 국물", "rice soup", "든든한 한 그릇"),
    ),
    Category(
        "샐러드",
        "Salad",
        10500,
        (11, 18),
        ("닭가슴살샐러드", "연어샐러드", "포케", "착즙주스"),
        ("다이어트", "건강한 식사", "healthy bowl", "채소 많은"),
    ),
    Category(
        "아시안",
        "Asian",
        12500,
        (12, 18),
        ("쌀국수", "팟타이", "분짜", "나시고렝"),
        ("베트남 음식", "태국 음식", "pho", "동남아 요리"),
    ),
    Category(
        "회",
        "Sashimi",
        32000,
        (18, 20),
        ("광어회", "연어회", "모둠초밥", "매운탕"),
        ("생선", "신선한 해산물", "raw fish", "스시"),
    ),
    Category(
        "도시락",
        "Lunchbox",
        8500,
        (11, 12),
        ("제육도시락", "치킨마요", "불고기도시락", "컵밥"),
        ("혼밥", "간단한 점심", "bento", "밥 한 그릇"),
    ),
    Category(
        "야식",
        "Late night",
        18000,
        (23, 1),
        ("닭발", "곱창볶음", "오돌뼈", "계란찜"),
        ("밤에 먹는 매운 거", "소주 안주", "spicy late night", "닭 발"),
    ),
)

# What people type who have no kind of shop in mind yet, and the kinds that they then order from;
# none named means any.
WISHES: tuple[tuple[str, frozenset[str]], ...] = (
    ("맛집", frozenset()),
    ("dinner for two", frozenset()),
    ("점심", frozenset({"한식", "도시락", "국밥", "중식", "일식", "샐러드"})),
    ("매운 거", frozenset({"분식", "야식", "중식", "아시안", "한식"})),
    ("noodles", frozenset({"중식", "일식", "아시안", "족발"})),
    ("안주", frozenset({"치킨", "족발", "야식", "회"})),
    ("간식", frozenset({"분식", "디저트", "카페", "버거"})),
    ("아이랑 먹을 거", frozenset({"피자", "치킨", "일식", "버거"})),
    ("something light", frozenset({"샐러드", "도시락", "카페", "아시안"})),
    ("뜨끈한 거", frozenset({"국밥", "한식", "일식", "아시안"})),
)

NAMES = (
    ("행복한", "Happy"), ("우리", "Our"), ("할매", "Granny's"), ("마당", "Courtyard"),
    ("한강", "Hangang"), ("달빛", "Moonlight"), ("청춘", "Youth"), ("골목", "Alley"),
    ("황금", "Golden"), ("바른", "Honest"), ("소문난", "Famous"), ("동네", "Neighbour"),
    ("옛날", "Old Days"), ("든든한", "Hearty"), ("오늘의", "Today's"), ("별난", "Quirky"),
    ("산들", "Breeze"), ("큰손", "Big Hand"), ("새벽", "Dawn"), ("맛있는", "Tasty"),
)  # fmt: skip
