"""Words that word swaps leave as they are."""

# Words that carry grammar rather than content, negations among them: swapping "not" would change what a text means.
_FUNCTION_WORDS = """
a an the this that these those such same other another each every either neither both all any some few more most many
much several no none one once own only
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves who whom whose which what whoever whatever someone somebody something
anyone anybody anything everyone everybody everything nobody nothing
am is are was were be been being have has had having do does did doing done will would shall should can could may might
must ought cannot
and or but nor so yet if unless until while although though because since than whether as
about above across after against along among around at before behind below beneath beside between beyond by down during
except for from in inside into near of off on onto out outside over per through throughout to toward towards under up
upon via with within without
again almost already also always away else ever even first further here hence how however just least less never now
nowhere often otherwise perhaps quite rather somehow sometimes somewhere still then there thereby therefore thus
together too very well when whenever where whereas wherever why not
n't nt s t d m o ll re ve ca wo ai isn't aren't wasn't weren't don't doesn't didn't haven't hasn't hadn't won't wouldn't
shan't shouldn't can't couldn't mustn't mightn't needn't ain't it's that's he's she's there's what's i'm you're we're
they're i've you've we've they've i'd you'd he'd she'd we'd they'd i'll you'll he'll she'll it'll we'll they'll let's
"""


STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
