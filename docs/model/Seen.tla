-------------------------------- MODULE Seen --------------------------------
(* The protocol as somebody sees it who has only a history: which terms begin   *)
(* and end, when there is work, what stands in the store, who dies. It knows of *)
(* no lease, no request and no clock. `Onlooker` shows that the model does not  *)
(* leave it; `Replay` looks whether a recorded history does.                    *)
(*                                                                              *)
(* Each step has what it needs, and an operator for what is seen after it.      *)
EXTENDS Naturals

CONSTANT Clients
VARIABLE seen


(* Of a process: the token of its latest term, and how its lock came about: it  *)
(* was given, released with nothing left to wait for, or free, and work settled. *)
(* `open`: that term goes on. `busy`: pieces of work that run, the term is one. *)
NoTerm == [tok |-> 0, origin |-> "free", open |-> FALSE, busy |-> 0]

First(up) ==
    [up      |-> up,      \* the processes that run
     term    |-> [c \in Clients |-> NoTerm],
     top     |-> 0,       \* the token of the last term
     how     |-> "good",  \* how that one ended: "open" while it goes on, "good", "lost"
     there   |-> up,      \* who could be given its lock
     stood   |-> 0,       \* the index with which the lock was last seen in the store
     passed  |-> FALSE,   \* after the last term somebody had the lock and began none
     byhand  |-> 0,       \* the index until which the lock may have been taken by hand
     taken   |-> {},      \* who works on a lock that was taken so
     deaf    |-> {},      \* who may not hear of it now
     missed  |-> {}]      \* who may not have heard of it since

Larger(a, b) == IF a > b THEN a ELSE b
Busy(c) == seen.term[c].busy > 0
Working == {c \in Clients : Busy(c)}

(* ------------------------------ terms and work ----------------------------- *)

Begun(s, c, t, origin) ==
    LET new == [s EXCEPT !.term[c] = [tok |-> t, origin |-> origin, open |-> TRUE, busy |-> 1],
                         !.taken = IF t <= s.byhand THEN @ \cup {c} ELSE @]
    IN IF t > s.top THEN [new EXCEPT !.top = t, !.how = "open", !.there = {}, !.passed = FALSE] ELSE new

(* Did somebody hold the lock between the last term and the grant t?            *)
Passed(t) == seen.passed \/ (seen.top < seen.stood /\ seen.stood < t)

(* Its lock was taken by hand before it began, and it may not know.             *)
MayNotKnow(c, t) == t <= seen.byhand /\ c \in seen.missed

(* Nobody begins while another one works, unless that one cannot know. Tokens   *)
(* grow, and the lock has not moved on. Only after a good end need nobody       *)
(* settle, and only who was there then can have been given the lock.            *)
Begins(c, t, origin) ==
    /\ c \in seen.up /\ ~Busy(c)
    /\ \/ MayNotKnow(c, t)
       \/ /\ Working \subseteq seen.taken \cap seen.missed
          /\ t > seen.top
          /\ t >= seen.stood \/ t <= seen.byhand
    /\ origin = "given" => seen.how = "good" /\ c \in seen.there
    /\ origin = "released" => seen.how = "good" \/ Passed(t)
    /\ seen' = Begun(seen, c, t, origin)

(* Work begins only in a term that goes on.                                     *)
Takes(c, t) ==
    /\ seen.term[c].open /\ seen.term[c].tok = t
    /\ seen' = [seen EXCEPT !.term[c].busy = @ + 1]

Fewer(s, c) ==
    [s EXCEPT !.term[c].busy = @ - 1, !.taken = IF s.term[c].busy = 1 THEN @ \ {c} ELSE @]

Finishes(c) == Busy(c) /\ seen' = Fewer(seen, c)

(* A term ends once. An older one that ends late says nothing of the last.      *)
Ended(s, c, how) ==
    LET fewer == [Fewer(s, c) EXCEPT !.term[c].open = FALSE] IN
    IF s.term[c].tok # s.top THEN fewer
    ELSE [fewer EXCEPT !.how = how, !.there = IF how = "good" THEN s.up \ {c} ELSE @]

EndsTerm(c, t, how) ==
    /\ seen.term[c].open /\ seen.term[c].tok = t
    /\ seen' = Ended(seen, c, how)

(* -------------------------------- processes -------------------------------- *)

Starts(c) ==
    /\ c \notin seen.up
    /\ seen' = [seen EXCEPT !.up = @ \cup {c}]

(* A term that its process leaves by dying is lost. Several may die at once.    *)
Died(s, cs) ==
    [s EXCEPT !.up = @ \ cs, !.there = @ \ cs, !.taken = @ \ cs,
              !.term = [c \in Clients |-> IF c \in cs THEN NoTerm ELSE @[c]],
              !.how = IF \E c \in cs : s.term[c].open /\ s.term[c].tok = s.top THEN "lost" ELSE @]

Die(cs) ==
    /\ cs # {} /\ cs \subseteq seen.up
    /\ seen' = Died(seen, cs)

(* -------------------------------- the store -------------------------------- *)

(* The lock stands under another index than it was last seen with: it grows. It  *)
(* may be seen late, so a term of a later one may have begun.                    *)
Stood(s, i) == [s EXCEPT !.stood = i, !.passed = @ \/ (s.top < s.stood)]

Stands(i) ==
    /\ i > seen.stood
    /\ seen' = Stood(seen, i)

(* The lock is taken from whoever has it. Who works meanwhile and is deaf before *)
(* it has ended cannot know, and works on until its deadline.                   *)
Taken(s) ==
    [s EXCEPT !.byhand = Larger(s.stood, s.top), !.missed = (@ \cap s.taken) \cup s.deaf,
              !.taken = @ \cup Working]
Deafened(s, cs) == [s EXCEPT !.deaf = cs, !.missed = @ \cup cs]

TakenByHand == seen' = Taken(seen)
AreDeaf(cs) == seen' = Deafened(seen, cs)

(* A replica that was behind takes over: the index goes back, no token does.    *)
GoesBack == seen' = [seen EXCEPT !.stood = 0, !.how = "good", !.there = seen.up]

Init == seen = First(Clients)

Next ==
    \/ \E c \in Clients :
        \/ Begins(c, seen'.term[c].tok, seen'.term[c].origin)
        \/ \E how \in {"good", "lost"} : EndsTerm(c, seen.term[c].tok, how)
        \/ Takes(c, seen.term[c].tok) \/ Finishes(c) \/ Starts(c)
    \/ Die(seen.up \ seen'.up)
    \/ Stands(seen'.stood) \/ TakenByHand \/ AreDeaf(seen'.deaf) \/ GoesBack

Spec == Init /\ [][Next]_seen
=============================================================================
