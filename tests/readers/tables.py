"""Tables in the form of TPC-H's, made by DuckDB from row numbers alone, and queries of TPC-H over them.

Money is decimal, so that a sum is the same in whatever order threads add. Each query is of TPC-H's text, with
constants that suit the size.
"""

LINES, ORDERS, CUSTOMERS, SUPPLIERS, PARTS = 120_000, 30_000, 3_000, 200, 4_000
ROW_GROUP = 20_000


def spread(number, salt, count):
    """SQL of an integer in [0, count) that depends on the row's number and the column's salt alone."""
    return f"(hash({number} * 100 + {salt}) % {count})::bigint"


def one_of(number, salt, words):
    listed = ", ".join(f"'{word}'" for word in words)
    return f"([{listed}])[1 + {spread(number, salt, len(words))}]"


def money(number, salt, cents):
    return f"({spread(number, salt, cents)} * 0.01::decimal(3, 2))::decimal(15, 2)"


def day(number, salt):
    return f"(date '1992-01-01' + {spread(number, salt, 2400)}::integer)"


SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD")
PRIORITIES = ("1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW")
MODES = ("REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB")
TYPES = ("PROMO BURNISHED COPPER", "LARGE BRUSHED BRASS", "STANDARD POLISHED TIN", "SMALL PLATED STEEL", "PROMO PLATED TIN")
REGIONS = ("AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST")

TABLES = {
    "region": f"select i as r_regionkey, ([{', '.join(repr(it) for it in REGIONS)}])[1 + i] as r_name from range(5) t(i)",
    "nation": "select i as n_nationkey, 'NATION ' || i as n_name, i % 5 as n_regionkey from range(25) t(i)",
    "supplier": f"select i as s_suppkey, 'Supplier#' || i as s_name, {spread('i', 1, 25)} as s_nationkey "
                f"from range({SUPPLIERS}) t(i)",
    "customer": f"select i as c_custkey, 'Customer#' || i as c_name, {spread('i', 2, 25)} as c_nationkey, "
                f"{one_of('i', 3, SEGMENTS)} as c_mktsegment, {money('i', 4, 999999)} as c_acctbal, "
                f"md5('phone' || i) as c_phone from range({CUSTOMERS}) t(i)",
    "part": f"select i as p_partkey, md5('part' || i) as p_name, {one_of('i', 5, TYPES)} as p_type, "
            f"{spread('i', 6, 50)} as p_size from range({PARTS}) t(i)",
    "orders": f"select i as o_orderkey, {spread('i', 7, CUSTOMERS)} as o_custkey, {day('i', 8)} as o_orderdate, "
              f"{one_of('i', 9, PRIORITIES)} as o_orderpriority, {money('i', 10, 40000000)} as o_totalprice, "
              f"md5('order' || i) as o_comment from range({ORDERS}) t(i)",
    "lineitem": f"select {spread('i', 11, ORDERS)} as l_orderkey, {spread('i', 12, PARTS)} as l_partkey, "
                f"{spread('i', 13, SUPPLIERS)} as l_suppkey, i % 7 as l_linenumber, "
                f"(1 + {spread('i', 14, 50)})::decimal(15, 2) as l_quantity, {money('i', 15, 9000000)} as l_extendedprice, "
                f"{money('i', 16, 11)} as l_discount, {money('i', 17, 9)} as l_tax, "
                f"{one_of('i', 18, ('R', 'A', 'N'))} as l_returnflag, {one_of('i', 19, ('O', 'F'))} as l_linestatus, "
                f"{day('i', 20)} as l_shipdate, {day('i', 21)} as l_commitdate, {day('i', 22)} as l_receiptdate, "
                f"{one_of('i', 23, MODES)} as l_shipmode, md5('line' || i) as l_comment from range({LINES}) t(i)",
}

# In a CSV file nothing says that money is decimal.
DECIMALS = {
    "customer": ("c_acctbal",), "orders": ("o_totalprice",),
    "lineitem": ("l_quantity", "l_extendedprice", "l_discount", "l_tax"),
}

QUERIES = {
    "Q1": """select l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice),
        sum(l_extendedprice * (1 - l_discount)), sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)),
        avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*)
        from lineitem where l_shipdate <= date '1998-12-01' - interval 90 day group by all order by all""",
    "Q3": """select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate
        from customer, orders, lineitem where c_mktsegment = 'BUILDING' and c_custkey = o_custkey
        and l_orderkey = o_orderkey and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate order by revenue desc, o_orderdate, l_orderkey limit 10""",
    "Q4": """select o_orderpriority, count(*) from orders where o_orderdate >= date '1993-07-01'
        and o_orderdate < date '1993-10-01' and exists (select * from lineitem where l_orderkey = o_orderkey
        and l_commitdate < l_receiptdate) group by all order by all""",
    "Q5": """select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
        from customer, orders, lineitem, supplier, nation, region where c_custkey = o_custkey
        and l_orderkey = o_orderkey and l_suppkey = s_suppkey and c_nationkey = s_nationkey
        and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'ASIA'
        group by n_name order by revenue desc, n_name""",
    "Q6": """select sum(l_extendedprice * l_discount) from lineitem where l_shipdate >= date '1994-01-01'
        and l_shipdate < date '1995-01-01' and l_discount between 0.05 and 0.07 and l_quantity < 24""",
    "Q10": """select c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) as revenue, c_acctbal, n_name, c_phone
        from customer, orders, lineitem, nation where c_custkey = o_custkey and l_orderkey = o_orderkey
        and o_orderdate >= date '1993-10-01' and o_orderdate < date '1994-01-01' and l_returnflag = 'R'
        and c_nationkey = n_nationkey group by all order by revenue desc, c_custkey limit 20""",
    "Q12": """select l_shipmode, count(*) filter (o_orderpriority in ('1-URGENT', '2-HIGH')) as high, count(*) as all_lines
        from orders, lineitem where o_orderkey = l_orderkey and l_shipmode in ('MAIL', 'SHIP')
        and l_commitdate < l_receiptdate and l_shipdate < l_commitdate group by all order by all""",
    "Q14": """select sum(case when p_type like 'PROMO%' then l_extendedprice * (1 - l_discount) else 0 end),
        sum(l_extendedprice * (1 - l_discount)) from lineitem, part where l_partkey = p_partkey
        and l_shipdate >= date '1995-09-01' and l_shipdate < date '1995-10-01'""",
    "Q18": """select c_name, o_orderkey, o_totalprice, sum(l_quantity) from customer, orders, lineitem
        where o_orderkey in (select l_orderkey from lineitem group by l_orderkey having sum(l_quantity) > 270)
        and c_custkey = o_custkey and o_orderkey = l_orderkey group by all order by o_totalprice desc, o_orderkey limit 20""",
}


def make(folder, form, options):
    """Writes every table as FOLDER/TABLE.FORM."""
    import duckdb
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as db:
        db.execute("set threads = 1")
        for name, select in TABLES.items():
            db.execute(f"copy ({select}) to '{folder / name}.{form}' ({options})")


def query(folder, form):
    """Runs every query over the files and gives the lines that it prints."""
    import duckdb
    with duckdb.connect() as db:
        for name in TABLES:
            source = f"'{folder / name}.{form}'"
            if form == "csv":
                types = ", ".join(f"'{column}': 'decimal(15, 2)'" for column in DECIMALS.get(name, ()))
                source = f"read_csv({source}, types = {{{types}}})" if types else source
            db.execute(f"create view {name} as from {source}")
        for name, text in QUERIES.items():
            rows = db.execute(text).fetchall()
            if not rows:
                raise SystemExit(f"{name} found nothing: the data do not suit it")
            for row in rows:
                yield f"{name}\t" + "\t".join(str(value) for value in row)
