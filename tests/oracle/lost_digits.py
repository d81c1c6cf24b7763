"""Programs that lose digits, each as a function of mpmath and with points at which it loses them; «…» marks the step that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import mpmath as mp

D, S, H, B = "float64", "float32", "float16", "bfloat16"


@dataclass(frozen=True)
class Case:
    """A program and what it means; `points`: dtype and arguments."""

    name: str
    program: str
    exact: Callable[..., Any]
    points: tuple[tuple[str, tuple[Any, ...]], ...]

    @property
    def text(self) -> str:
        return self.program.replace("«", "").replace("»", "")

    @property
    def line(self) -> int | None:
        """Of the step that loses; None where the program does not say."""
        return next((i + 1 for i, line in enumerate(self.program.split("\n")) if "«" in line), None)


def case(name: str, program: str, exact: Callable[..., Any], *points: tuple[str, tuple[Any, ...]]) -> Case:
    return Case(name, program, exact, points)


def P(dtype: str, *arguments: Any) -> tuple[str, tuple[Any, ...]]:  # noqa: N802  # a row's shorthand, as D, S, H and B are
    return dtype, arguments


def V(*numbers: float) -> list[float]:  # noqa: N802
    return list(numbers)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def softmax(z: Any) -> list[Any]:
    powers = [mp.exp(v - max(z)) for v in z]
    return [power / mp.fsum(powers) for power in powers]


def variance(x: Any) -> Any:
    mean = mp.fsum(x) / len(x)
    return mp.fsum([(v - mean) ** 2 for v in x]) / len(x)


def dot(x: Any, y: Any) -> Any:
    return mp.fsum([a * b for a, b in zip(x, y, strict=True)])


def matrix(rows: Any) -> Any:
    return mp.matrix(rows)


def column(numbers: Any) -> Any:
    return mp.matrix([[number] for number in numbers])


# fmt: off
CASES: Final = (
    case("1-cos","«1 - cos(x)»",lambda x:1-mp.cos(x),P(D,1e-9),P(S,1e-4),P(H,0.01),P(D,1e-3),P(S,1e-2)),
    case("versine loss","a = x * 2\nb = cos(a)\nc = «1.0 - b»\nreturn sqrt(c)",lambda x:mp.sqrt(1-mp.cos(2*x)),P(D,1e-7),P(S,1e-3),P(D,3e-8)),
    case("cos-1","«cos(x) - 1»",lambda x:mp.cos(x)-1,P(D,1e-9),P(S,1e-4)),
    case("expm1","«exp(x) - 1»",lambda x:mp.expm1(x),P(D,1e-12),P(S,1e-6),P(H,1e-3),P(B,0.01),P(D,-1e-10)),
    case("expm1/x","t = exp(x) - 1\nreturn «t / x»",lambda x:mp.expm1(x)/x,P(D,1e-8),P(S,1e-3),P(D,1e-5),P(S,-1e-4)),
    case("expm1 via torch","«torch.exp(x) - 1.0»",lambda x:mp.expm1(x),P(D,1e-9),P(S,1e-5)),
    case("1-exp(-x)","«1 - exp(-x)»",lambda x:-mp.expm1(-x),P(D,1e-12),P(S,1e-6),P(H,1e-3)),
    case("log 1-exp(-x)","y = exp(-x)\nreturn «log(1 - y)»",lambda x:mp.log(-mp.expm1(-x)),P(D,1e-10),P(S,1e-5),P(S,1e-3)),
    case("log1p","«log(1 + x)»",lambda x:mp.log1p(x),P(D,1e-12),P(S,1e-6),P(H,1e-3),P(B,1e-3)),
    case("log1p rev","«log(x + 1)»",lambda x:mp.log1p(x),P(D,1e-13),P(S,1e-7)),
    case("log1p/x","return «log(1.0 + x)» / x",lambda x:mp.log1p(x)/x,P(D,1e-9),P(S,1e-4)),
    case("log10 1p","«log10(1 + x)»",lambda x:mp.log1p(x)/mp.log(10),P(D,1e-12),P(S,1e-6)),
    case("log2 1p","«log2(1 + x)»",lambda x:mp.log1p(x)/mp.log(2),P(D,1e-12),P(S,1e-6)),
    case("sqrt diff","«sqrt(x + 1) - sqrt(x)»",lambda x:mp.sqrt(x+1)-mp.sqrt(x),P(D,1e12),P(S,1e6),P(D,1e8),P(S,1e4),P(H,1000.)),
    case("sqrt diff 2","a = sqrt(x + 1)\nb = sqrt(x)\nreturn «a - b»",lambda x:mp.sqrt(x+1)-mp.sqrt(x),P(D,1e10),P(S,1e5)),
    case("sqrt diff pow","«(x + 1)**0.5 - x**0.5»",lambda x:mp.sqrt(x+1)-mp.sqrt(x),P(D,1e10),P(S,1e5)),
    case("sqrt 1+x -1","«sqrt(1 + x) - 1»",lambda x:mp.sqrt(1+x)-1,P(D,1e-12),P(S,1e-6)),
    case("1-sqrt 1-x","«1 - sqrt(1 - x)»",lambda x:1-mp.sqrt(1-x),P(D,1e-12),P(S,1e-6)),
    case("hyp-x","«sqrt(x**2 + 1) - x»",lambda x:mp.sqrt(x**2+1)-x,P(D,1e8),P(S,1e4)),
    case("quad","«(-b + sqrt(b**2 - 4*a*c)) / (2*a)»",lambda a,b,c_:(-b+mp.sqrt(b**2-4*a*c_))/(2*a),P(D,1.,1e9,1.),P(S,1.,1e4,1.),P(D,2.,1e7,3.)),
    case("quad lines","d = sqrt(b*b - 4*a*c)\nreturn «(-b + d) / (2*a)»",lambda a,b,c_:(-b+mp.sqrt(b**2-4*a*c_))/(2*a),P(D,1.,1e8,1.),
        P(S,1.,3e3,1.)),
    case("quad half","«-p + sqrt(p**2 - q)»",lambda p,q:-p+mp.sqrt(p**2-q),P(D,1e8,1.),P(S,1e4,1.)),
    case("lse2","«log(exp(a) + exp(b))»",lambda a,b:mp.log(mp.exp(a)+mp.exp(b)),P(S,100.,99.),P(D,800.,799.),P(S,-120.,-110.),P(H,12.,11.),
        P(D,-800.,-801.)),
    case("softplus","«log(1 + exp(x))»",lambda x:mp.log1p(mp.exp(x)),P(S,-30.),P(S,100.),P(D,-50.),P(D,800.),P(H,12.),P(H,-10.),P(B,-10.)),
    case("sigmoid tail","«1 - sigmoid(x)»",lambda x:1/(1+mp.exp(x)),P(S,30.),P(D,50.),P(H,10.),P(S,12.),P(B,8.)),
    case("sigmoid hand","«1 / (1 + exp(-x))»",lambda x:sigmoid(x),P(S,-100.),P(D,-800.),P(S,3.),P(H,-12.)),
    case("sigmoid hand 2","«exp(x) / (1 + exp(x))»",lambda x:sigmoid(x),P(S,100.),P(D,800.),P(H,12.)),
    case("log sigmoid","«log(sigmoid(x))»",lambda x:-mp.log1p(mp.exp(-x)),P(S,-120.),P(D,-800.),P(S,20.),P(D,40.),P(H,-20.)),
    case("log 1-sigmoid","s = sigmoid(x)\nreturn «log(1 - s)»",lambda x:-mp.log1p(mp.exp(x)),P(S,30.),P(D,50.),P(S,10.),P(H,9.)),
    case("logit","«log(p / (1 - p))»",lambda p:mp.log(p)-mp.log1p(-p),P(D,0.5+1e-12),P(S,0.5+1e-5)),
    case("logit tail","q = sigmoid(x)\nreturn «log(q / (1 - q))»",lambda x:x,P(D,30.),P(S,12.),P(S,16.),P(D,36.)),
    case("logit diff","q = sigmoid(x)\nreturn «log(q) - log(1 - q)»",lambda x:x,P(D,30.),P(S,12.)),
    case("logit fn","«logit(sigmoid(x))»",lambda x:x,P(D,30.),P(S,12.)),
    case("1-erf","«1 - erf(x)»",lambda x:mp.erfc(x),P(S,3.),P(D,5.),P(S,4.),P(D,7.),P(H,2.)),
    case("phi tail","0.5 * («1 + erf(x / sqrt(2.0))»)",lambda x:mp.erfc(-x/mp.sqrt(2))/2,P(S,-5.),P(D,-8.),P(S,-3.)),
    case("phi as a sum","«0.5 + 0.5 * erf(x / math.sqrt(2))»",lambda x:mp.erfc(-x/mp.sqrt(2))/2,P(D,-5.),P(S,-3.),P(D,-3.)),
    case("upper tail as a difference","«0.5 - 0.5 * erf(x / math.sqrt(2))»",lambda x:mp.erfc(x/mp.sqrt(2))/2,P(D,5.),P(S,3.)),
    case("haversine","«0.5 - 0.5 * cos(x)»",lambda x:mp.sin(x/2)**2,P(D,1e-7),P(S,1e-3)),
    case("a rounded root","0.5 * (1 + erf(x / sqrt(2.0)))",lambda x:mp.erfc(-x/mp.sqrt(2))/2,P(D,-5.),P(D,-7.),P(D,-2.)),
    case("a root of a tensor","0.5 * (1 + erf(x / sqrt(tensor(2.0))))",lambda x:mp.erfc(-x/mp.sqrt(2))/2,P(D,-5.),P(D,-7.),P(D,-2.)),
    case("a root by its digits","0.5 * (1 + erf(x / 1.4142135623730951))",lambda x:mp.erfc(-x/mp.mpf(1.4142135623730951))/2,P(D,-5.)),
    case("normal density","exp(-x ** 2 / 2) / sqrt(2 * math.pi)",lambda x:mp.exp(-x**2/2)/mp.sqrt(2*mp.pi),P(D,7.),P(S,5.),P(H,2.5)),
    case("half turns","sin(math.pi * x)",lambda x:mp.sin(mp.pi*x),P(D,1000000.25),P(S,100.25),P(D,0.25)),
    case("cube root","x ** (1 / 3)",lambda x:mp.cbrt(x),P(D,1e-100),P(D,8.),P(S,1e-30)),
    case("spread","«x.std()»",lambda x:mp.sqrt(variance(x)*len(x)/(len(x)-1)),P(S,V(1000.,1001.,1003.)),P(D,V(1e8,1e8+1,1e8+3)),P(H,V(9.,10.,12.))),
    case("spread squared","«x.var()»",lambda x:variance(x)*len(x)/(len(x)-1),P(S,V(1000.,1001.,1003.)),P(D,V(1e8,1e8+1,1e8+3))),
    case("a zero in the middle","(x ** 2).mean() - x.mean() ** 2",lambda x:variance(x),P(S,V(1000.,1001.,1002.)),P(D,V(1e6,1e6+1,1e6+2))),
    case("log phi","p = special.ndtr(x)\nreturn «log(p)»",lambda x:mp.log(mp.erfc(-x/mp.sqrt(2))/2),P(S,-15.),P(D,-40.)),
    case("log erfc","«log(erfc(x))»",lambda x:mp.log(mp.erfc(x)),P(S,11.),P(D,28.)),
    case("1-tanh","«1 - tanh(x)»",lambda x:2/(1+mp.exp(2*x)),P(S,8.),P(D,18.),P(H,3.)),
    case("1-tanh2","t = tanh(x)\nreturn «1 - t**2»",lambda x:mp.sech(x)**2,P(S,8.),P(D,17.),P(H,3.)),
    case("atanh tanh","«atanh(tanh(x))»",lambda x:x,P(S,7.),P(D,17.)),
    case("atanh near 1","y = 1 - x\nreturn «atanh(y)»",lambda x:mp.atanh(1-x),P(S,1e-6),P(D,1e-14),P(D,1e-10)),
    case("acos near 1","y = 1 - x\nreturn «acos(y)»",lambda x:mp.acos(1-x),P(S,1e-6),P(D,1e-14),P(D,1e-10)),
    case("asin near 1","«asin(1 - x)»",lambda x:mp.asin(1-x),P(S,1e-6),P(D,1e-14)),
    case("acosh near 1","«acosh(1 + x)»",lambda x:mp.acosh(1+x),P(S,1e-6),P(D,1e-14)),
    case("atanh hand","0.5 * «log((1 + x) / (1 - x))»",lambda x:mp.atanh(x),P(S,1e-5),P(D,1e-12)),
    case("asinh hand","«log(x + sqrt(x**2 + 1))»",lambda x:mp.asinh(x),P(S,-1e3),P(D,-1e7),P(D,1e-10),P(S,1e-5)),
    case("acosh hand","«log(x + sqrt(x**2 - 1))»",lambda x:mp.acosh(x),P(S,1.0001),P(D,1+1e-10)),
    case("sinh hand","«(exp(x) - exp(-x)) / 2»",lambda x:mp.sinh(x),P(S,1e-5),P(D,1e-10)),
    case("tanh hand","«(exp(x) - exp(-x)) / (exp(x) + exp(-x))»",lambda x:mp.tanh(x),P(S,100.),P(D,800.),P(S,1e-5)),
    case("tanh hand 2","e = exp(2*x)\nreturn «(e - 1) / (e + 1)»",lambda x:mp.tanh(x),P(S,60.),P(D,400.),P(S,1e-5),P(D,1e-10)),
    case("cosh-1","«cosh(x) - 1»",lambda x:mp.cosh(x)-1,P(S,1e-3),P(D,1e-7)),
    case("logcosh","«log(cosh(x))»",lambda x:mp.log(mp.cosh(x)),P(S,100.),P(D,800.),P(S,1e-3),P(D,1e-6)),
    case("tan-sin","«tan(x) - sin(x)»",lambda x:mp.tan(x)-mp.sin(x),P(S,1e-2),P(D,1e-4)),
    case("x-sin","«x - sin(x)»",lambda x:x-mp.sin(x),P(S,1e-2),P(D,1e-4)),
    case("sinc diff","«sin(x) / x - 1»",lambda x:mp.sin(x)/x-1,P(S,1e-2),P(D,1e-5)),
    case("slope of exp","«(exp(x) - 1) / x»",lambda x:(mp.exp(x)-1)/x,P(S,1e-5),P(D,1e-7),P(D,-3e-3)),
    case("slope of expm1","«expm1(x) / x»",lambda x:mp.expm1(x)/x,P(S,1e-4),P(D,1e-9)),
    case("second slope of exp","«(exp(x) - 1 - x) / x**2»",lambda x:(mp.exp(x)-1-x)/x**2,P(S,1e-3),P(D,1e-5)),
    case("cosine's curvature","«(1 - cos(x)) / x**2»",lambda x:(1-mp.cos(x))/x**2,P(S,1e-3),P(S,1e-4),P(D,1e-5)),
    case("sine over angle","«sin(x) / x»",lambda x:mp.sin(x)/x,P(S,1e-4),P(D,1e-9)),
    case("log of a difference","«log(exp(a) - exp(b))»",lambda a,b:mp.log(mp.exp(a)-mp.exp(b)),P(S,100.,99.),P(D,800.,799.5)),
    case("ratio of squares","«x**2 / y**2»",lambda x,y:x*x/y/y,P(S,1e25,2e25),P(D,1e-200,3e-200)),
    case("sin+h","«sin(x + h) - sin(x)»",lambda x,h:mp.sin(x+h)-mp.sin(x),P(S,1.,1e-4),P(D,1.,1e-9)),
    case("cos+h","(«cos(x + h) - cos(x)») / h",lambda x,h:(mp.cos(x+h)-mp.cos(x))/h,P(S,1.,1e-3),P(D,1.,1e-7)),
    case("recip diff","«1/x - 1/(x + 1)»",lambda x:1/x-1/(x+1),P(S,1e4),P(D,1e9)),
    case("log diff","«log(x + 1) - log(x)»",lambda x:mp.log1p(1/x),P(S,1e5),P(D,1e10)),
    case("a2-b2","«a**2 - b**2»",lambda a,b:a**2-b**2,P(S,10001.,10000.),P(D,1e9+1,1e9)),
    case("large+small","y = x + 1e8\nreturn «y - 1e8»",lambda x:(x+mp.mpf(10)**8)-mp.mpf(10)**8,P(S,0.3),P(D,1e-6)),
    case("large+small2","s = a + b\nt = «s - a»\nreturn t * t",lambda a,b:b*b,P(S,1e7,0.3),P(D,1e15,0.3)),
    case("hypot","«sqrt(x**2 + y**2)»",lambda x,y:mp.sqrt(x*x+y*y),P(S,1e25,2e25),P(D,1e200,1e200),P(H,300.,400.),P(S,1e-25,1e-25),
        P(D,1e-200,3e-200)),
    case("pow-1","«x ** y - 1»",lambda x,y:x**y-1,P(D,1+1e-10,2.),P(S,1+1e-5,3.)),
    case("lgamma diff","«lgamma(x + 1) - lgamma(x)»",lambda x:mp.log(x),P(D,1e14),P(S,1e6)),
    case("gamma ratio","«exp(lgamma(x + 1)) / exp(lgamma(x))»",lambda x:x,P(S,40.),P(D,180.)),
    case("beta","«lgamma(a) + lgamma(b) - lgamma(a + b)»",lambda a,b:mp.loggamma(a)+mp.loggamma(b)-mp.loggamma(a+b),P(D,1e10,2.),P(S,1e5,2.)),
    case("exp ratio","«exp(a) / exp(b)»",lambda a,b:mp.exp(a-b),P(S,100.,99.),P(D,800.,799.),P(H,12.,11.5),P(S,-110.,-109.)),
    case("exp diff","«exp(a) - exp(b)»",lambda a,b:mp.exp(a)-mp.exp(b),P(S,1.,1-1e-5),P(D,1.,1-1e-12)),
    case("poly","«(x - 1)**3»",lambda x:(x-1)**3,P(S,1.0001),P(D,1+1e-10)),
    case("poly expanded","«x**3 - 3*x**2 + 3*x - 1»",lambda x:(x-1)**3,P(S,1.01),P(D,1.0001)),
    case("rump-like","«x**2 - 2*x + 1»",lambda x:(x-1)**2,P(S,1.001),P(D,1+1e-7)),
    case("atan diff","«atan(x + 1) - atan(x)»",lambda x:mp.atan(x+1)-mp.atan(x),P(S,1e3),P(D,1e7)),
    case("atan pi/2","«1.5707963267948966 - atan(x)»",lambda x:mp.mpf(1.5707963267948966)-mp.atan(x),P(D,1e8)),
    case("sincos","«1 - sin(x)**2»",lambda x:mp.cos(x)**2,P(D,1.5707),P(S,1.57)),
    case("gelu tail","x * («1 + erf(x / 1.4142135623730951)»)",lambda x:x*mp.erfc(-x/mp.mpf(1.4142135623730951)),P(D,-8.)),
    case("kl bern","p = sigmoid(x)\nreturn p*log(p) + (1 - p)*log(1 - p)",lambda x:(lambda p,q:p*mp.log(p)+q*mp.log(q))(sigmoid(x),sigmoid(-x)),
        P(S,12.),P(D,32.)),
    case("expit diff","«sigmoid(x) - sigmoid(y)»",lambda x,y:sigmoid(x)-sigmoid(y),P(S,1.,1-1e-5),P(D,20.,21.),P(S,18.,19.)),
    case("erf diff","«erf(b) - erf(a)»",lambda a,b:mp.erf(b)-mp.erf(a),P(D,5.,5.5),P(S,3.,3.5)),
    case("log softmax","p = softmax(z, 0)\nreturn «log(p)»[1]",lambda z:mp.log(softmax(z)[1]),P(S,V(0.,-120.,5.)),P(D,V(0.,-800.,5.)),
        P(H,V(0.,-20.,5.)),P(S,V(10.,-90.,3.,4.)),P(B,V(0.,-100.,5.))),
    case("log softmax big","return «log(softmax(z, dim=0))»[0]",lambda z:mp.log(softmax(z)[0]),P(S,V(30.,0.,1.)),P(D,V(40.,0.,1.)),
        P(S,V(18.,0.,-3.))),
    case("nll hand","e = exp(z)\ns = e.sum()\np = e / s\nreturn -«log(p)»[0]",lambda z:-mp.log(softmax(z)[0]),P(S,V(-110.,5.,1.)),
        P(D,V(-800.,3.,1.)),P(S,V(100.,3.,1.))),
    case("lse","«log(exp(z).sum())»",lambda z:mp.log(mp.fsum(map(mp.exp,z))),P(S,V(100.,99.,3.)),P(D,V(800.,1.,3.)),P(S,V(-120.,-110.,-130.)),
        P(H,V(12.,11.,3.))),
    case("lse torch.sum","s = torch.sum(torch.exp(z))\nreturn «torch.log(s)»",lambda z:mp.log(mp.fsum(map(mp.exp,z))),P(S,V(100.,99.,3.)),
        P(D,V(800.,1.,3.))),
    case("softmax hand","e = exp(z)\nreturn («e / e.sum()»)[0]",lambda z:softmax(z)[0],P(S,V(100.,99.,3.)),P(D,V(800.,799.,3.)),
        P(S,V(-120.,-119.,-121.))),
    case("var","«(x**2).mean() - x.mean()**2»",variance,P(D,V(1e8,1e8+1,1e8+3)),P(S,V(1e4,1e4+1,1e4+3)),P(H,V(100.,101.,102.)),
        P(D,V(1e6,1e6+1,1e6+2.5))),
    case("var lines","m = x.mean()\nm2 = (x*x).mean()\nv = «m2 - m**2»\nreturn sqrt(v)",lambda x:mp.sqrt(variance(x)),P(D,V(1e6,1e6+1,1e6+3)),
        P(S,V(1e3,1e3+1,1e3+3))),
    case("var torch","«torch.mean(x**2) - torch.mean(x)**2»",variance,P(D,V(1e7,1e7+1,1e7+3)),P(S,V(3e3,3e3+1,3e3+3))),
    case("var sum","n = 3\nreturn «(x**2).sum()/n - (x.sum()/n)**2»",variance,P(D,V(1e7,1e7+1,1e7+3)),P(S,V(3e3,3e3+1,3e3+3))),
    case("ssd","«(x**2).sum() - x.sum()**2 / 4»",lambda x:4*variance(x),P(D,V(1e7,1e7+1,1e7+3,1e7)),P(S,V(3e3,3e3+1,3e3+3,3e3))),
    case("std","m2 = (x**2).mean()\nm = x.mean()\ns = sqrt(«m2 - m**2»)\nreturn ((x - m) / s)[0]",
        lambda x:(x[0]-mp.fsum(x)/len(x))/mp.sqrt(variance(x)),P(D,V(1e6,1e6+1,1e6+3)),P(S,V(1e3,1e3+1,1e3+3))),
    case("norm over","«sqrt((x**2).sum())»",lambda x:mp.sqrt(dot(x, x)),P(S,V(1e25,2e25)),P(D,V(1e200,2e200,1.)),P(H,V(300.,400.)),
        P(S,V(1e-25,2e-25))),
    case("norm unit","n = «sqrt((x*x).sum())»\nreturn (x / n)[0]",lambda x:x[0]/mp.sqrt(dot(x, x)),P(S,V(1e25,2e25)),P(D,V(1e200,2e200,1.))),
    case("prod log","«log(x.prod())»",lambda x:mp.log(mp.fprod(x)),P(S,V(1e-20,1e-20,3e-20)),P(D,V(1e-200,1e-200)),P(S,V(1e20,1e20))),
    case("sum cancel","«x.sum()»**2",lambda x:mp.fsum(x)**2,P(S,V(1e8,1.,-1e8)),P(D,V(1e16,1.,-1e16))),
    case("dot cancel","«(a * b).sum()»**3",lambda a,b:dot(a, b)**3,P(S,V(1e4,1.,-1e4),V(1e4,1.,1e4)),P(D,V(1e8,1.,-1e8),V(1e8,1.,1e8))),
    case("matvec","(«a @ b»)**2",lambda a,b:dot(a, b)**2,P(S,V(1e4,1.,-1e4),V(1e4,1.,1e4)),P(D,V(1e8,1.,-1e8),V(1e8,1.,1e8))),
    case("cov","«(x*y).mean() - x.mean()*y.mean()»",lambda x,y:dot(x, y)/3-mp.fsum(x)*mp.fsum(y)/9,P(D,V(1e8,1e8+1,1e8+3),V(1e8,1e8+2,1e8-1)),
        P(S,V(1e4,1e4+1,1e4+3),V(1e4,1e4+2,1e4-1))),
    case("dist","«(x*x).sum() + (y*y).sum() - 2*(x*y).sum()»",lambda x,y:mp.fsum([(u-v)**2 for u,v in zip(x, y, strict=True)]),
        P(S,V(1e3,1e3+1),V(1e3,1e3+1.5)),P(D,V(1e7,1e7+1),V(1e7,1e7+1.5))),
    case("entropy","p = softmax(z, 0)\nreturn -(p * «log(p)»).sum()",lambda z:-mp.fsum([p*mp.log(p) for p in softmax(z)]),P(S,V(0.,-120.,1.)),
        P(D,V(0.,-800.,1.))),
    case("bce","p = sigmoid(z)\nreturn -(t*log(p) + (1 - t)*«log(1 - p)»).mean()",
        lambda z,t:-mp.fsum([b*(-mp.log1p(mp.exp(-a)))+(1-b)*(-mp.log1p(mp.exp(a))) for a,b in zip(z, t, strict=True)])/len(z),
        P(S,V(30.,1.),V(0.,1.)),P(D,V(50.,1.),V(0.,1.)),P(S,V(12.,1.),V(0.,1.))),
    case("cosine","a = (x*y).sum()\nreturn «1 - a / (sqrt((x*x).sum()) * sqrt((y*y).sum()))»",lambda x,y:1-dot(x, y)/mp.sqrt(dot(x, x)*dot(y, y)),
        P(S,V(1.,2.),V(1.,2.001)),P(D,V(1.,2.),V(1.,2.0000001))),
    case("inv 2x2","«linalg.inv(a)»[0, 1]",lambda a:(matrix(a)**-1)[0,1],P(D,[[1.,1.],[1.,1.+1e-9]]),P(S,[[1.,1.],[1.,1.0001]])),
    case("det 2x2","«linalg.det(a)»**2",lambda a:mp.det(matrix(a))**2,P(D,[[1e8,1e8+1],[1e8-1,1e8]]),P(S,[[1000.,1001.],[999.,1000.1]])),
    case("det hand","«a[0,0]*a[1,1] - a[0,1]*a[1,0]»",lambda a:a[0][0]*a[1][1]-a[0][1]*a[1][0],P(D,[[1e8,1e8+1],[1e8-1,1e8]]),
        P(S,[[1000.,1001.],[999.,1000.1]])),
    case("normal eq","g = a.mT @ a\nr = a.mT @ b\nreturn «linalg.solve(g, r)».sum()",
        lambda a,b:mp.fsum(mp.lu_solve(matrix(a).T*matrix(a),matrix(a).T*column(b))),P(D,[[1.,1.],[1e-6,0.],[0.,1e-6]],V(1.,2.,3.)),
        P(S,[[1.,1.],[1e-3,0.],[0.,1e-3]],V(1.,2.,3.))),
)
# fmt: on
