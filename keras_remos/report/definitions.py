"""What every figure of a report means, and what no report can say: in plain words, here and nowhere else."""

TERMS = {
    "ACC": (
        "Accuracy: of the clean test inputs, the share that a model gets right. n is how many there are. 1 is all "
        "of them."
    ),
    "rACC": (
        "A student's accuracy over the control's, on the same inputs. 0.99 means: it gets right 99 for every 100 "
        "that the control does. Undefined where the control gets nothing right."
    ),
    "balanced accuracy": (
        "The share of right answers in each class, averaged over the classes. Where some classes are rare, a model "
        "that ignores them has a high ACC and a low balanced accuracy. One that always names the same class has 1 "
        "over the number of classes."
    ),
    "DIR": (
        "Defect inheritance rate: how much of an attack, made with the teacher, works on a student. Of an attack "
        "without a target: of the inputs that the student gets right when clean, the share that it gets wrong when "
        "attacked. Of an attack with a target: of the inputs of other classes, the share that the student takes "
        "for the attacker's class. 0 is none of them; lower is better. Undefined where no input counts."
    ),
    "rDIR": (
        "A student's DIR over the control's, on the same inputs. 0.25 means: a quarter of what an ordinary student "
        "inherits. It is as good as its control, and undefined where the control's DIR is 0."
    ),
    "excess": (
        "(DIR - floor) / (control - floor). 0 is a student that cannot have inherited anything, 1 is the control. "
        "Every model is wrong now and then, so that DIR and rDIR hardly reach 0; the excess does, and may fall "
        "below. Undefined where the control is not clearly above the floor: then there is nothing to inherit, and "
        "nothing to test."
    ),
    "F1": "Of triggers in texts: the DIR as Table 2 of the ReMoS paper prints it, 2 DIR / (1 + DIR). Judge by the DIR.",
    "teacher": "The model that all students were made from, and that the attacks were made with.",
    "control": (
        "An ordinary student: the teacher, fine-tuned on the same data. What the others are compared to. If it is "
        "poorly trained, every ratio flatters the others."
    ),
    "floor": (
        "A student that cannot have inherited the attack: trained from scratch, or from the teacher before it was "
        "poisoned. What fools it is the task's own difficulty."
    ),
    "interval": (
        "Beside a figure, or as a line: of 100 such intervals, from other test inputs like these, about 95 hold the "
        "true figure. Those of rates are Wilson's, those of ratios a bootstrap over inputs. They know nothing of other "
        "training seeds."
    ),
    "confusion": (
        "A row for each true class, a column for each class that the model says: how many inputs. What is off the "
        "diagonal is wrong."
    ),
    "kept": (
        "Of the weights of a layer that can be sliced, the share that the student took over from the teacher. The "
        "others were reset before it was trained."
    ),
    "excluded by magnitude": (
        "The weights of a layer in tenths, the smallest first; of each tenth the share that was reset. ReMoS "
        "resets what is large and yet not needed, so that the upper tenths are darker (Fig. 10 of the ReMoS "
        "paper)."
    ),
    "weight change": (
        "A student's weights over the teacher's, counted. 1: unchanged by training, 0: reset and never grown again "
        "(Fig. 9 of the ReMoS paper)."
    ),
    "training curves": (
        "What training reported after each epoch. Accuracy without val_ is on the training data, while the weights "
        "still move (Fig. 8 of the ReMoS paper)."
    ),
    "share kept": "How much of the teacher a student starts from. 1 is all of it: fine-tuning.",
    "coverage": (
        "Of a layer's neurons, the mean share of samples (or positions) that activate one, on its input and its "
        "output side. Where both are near 0, the data hardly use the layer."
    ),
    "fooled by the trigger": (
        "Of the test images that are not of the attacker's class, the share that is taken for it once they carry "
        "the trigger. Lower is better."
    ),
    "accuracy": "Of the clean test inputs, the share that a model gets right.",
}
"""Every figure of a report, by the name that it has there."""

LIMITS = (
    "A low figure is about the attacks that were tried, and is no proof about others. A trigger that nobody knows "
    "is not searched for.",
    "It is about these test inputs and these trained students. Other seeds would differ by more than the intervals "
    "say.",
    "It is about how models behave. Whether a file is safe to open is another question.",
    "Attacks on a student itself, and poisoned training data of your own, are not measured.",
    "Ratios are as good as the control: one that is trained badly flatters every other student.",
)
"""What a report of inheritance cannot say."""
