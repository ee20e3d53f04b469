import sys; sys.path.insert(0,'/work/main/tests')
import pytest, time
from test_collect_faults import *
from test_collect_faults import settings, machine, private
@pytest.mark.parametrize("where", ["binance_futures","kraken","mexc"])
def test_venue(private, settings, tmp_path, unique, where):
    name=unique("venue")
    faults=Faults(seed=12, duplicate=0.1, swap=0.02, cut_seconds=3.0, garbage=0.01)
    words=(*PAIR,"--session",name,"--settle","1s")
    with MockVenue(market(*PAIR,rate=200,seed=12),faults=faults) as venue, Recording(settings,tmp_path/"log",venue.url,*words,venue=where) as r:
        time.sleep(8); quiet(venue); time.sleep(1); r.stop()
        session=private.session(name)
        print(session.events()["event"].value_counts().rows(), session.options if hasattr(session,'options') else '')
        print(reconcile.events(session,"quarantine")["detail"].to_list()[:3], reconcile.events(session,"venue_error")["detail"].to_list()[:3])
        for s in PAIR: print([ (d.get('first_id'),d.get('last_id'),d['count'],d.get('cause'),d.get('state')) for d in reconcile.gap_details(session,s,"prices")][:6])
        print({s:v['unsent'][:6] for s,v in venue.ledger()['venues'][where].items()})
        try: reconcile.trades(f"{where}", private, session, venue, name=where)
        finally: print(private.verify(name).ids)
